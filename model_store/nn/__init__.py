"""The neural network of the article: layers, each with its forward and backward pass.

A batch is `(batch, features)`, one sample a row, or `(batch, height, width, channels)` of images. NumPy is the only
import.
"""

from model_store.nn.arrays import Array
from model_store.nn.average import Average
from model_store.nn.from_config import LAYERS, build
from model_store.nn.initializers import INITIALIZERS
from model_store.nn.layers.activations import (
    ELU,
    GELU,
    SELU,
    Activation,
    ExactGELU,
    Exp,
    Identity,
    LeakyReLU,
    Mish,
    ReLU,
    Sigmoid,
    SiLU,
    SmoothClip,
    Softmax,
    Softplus,
    Tanh,
)
from model_store.nn.layers.conv import Conv2D, Flatten
from model_store.nn.layers.dropout import Dropout
from model_store.nn.layers.embeddings import Embedding, PeriodicEmbedding
from model_store.nn.layers.feature_layers import Clip, ConstantInputs, FeatureScale, ParametricActivation
from model_store.nn.layers.gather import Gather
from model_store.nn.layers.linear import Linear
from model_store.nn.layers.normalization import BatchNorm, LayerNorm
from model_store.nn.layers.pooling import AveragePool2D, MaxPool2D
from model_store.nn.module import Module
from model_store.nn.sequential import Sequential

__all__ = [
    "ELU",
    "GELU",
    "INITIALIZERS",
    "LAYERS",
    "SELU",
    "Activation",
    "Array",
    "Average",
    "AveragePool2D",
    "BatchNorm",
    "Clip",
    "ConstantInputs",
    "Conv2D",
    "Dropout",
    "Embedding",
    "ExactGELU",
    "Exp",
    "FeatureScale",
    "Flatten",
    "Gather",
    "Identity",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "MaxPool2D",
    "Mish",
    "Module",
    "ParametricActivation",
    "PeriodicEmbedding",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SmoothClip",
    "Softmax",
    "Softplus",
    "Tanh",
    "build",
]
