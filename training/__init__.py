"""Training: losses, optimizers and the training loop, and jobs that run them from data to artifact."""

from training.engine import loop as trainer
from training.engine.gradient_check import GradientError, check_gradients, check_loss
from training.engine.loop import DivergedError, train
from training.losses import MAE, MSE, BinaryCrossEntropy, CrossEntropy, Huber, Loss
from training.optim.base import Optimizer
from training.optim.lr_schedulers import Constant, Cosine, OneCycle, OnPlateau, Schedule, StepDecay, WarmUp
from training.optim.optimizers import SGD, Adam, AdamW, RMSProp

__all__ = [
    "MAE",
    "MSE",
    "SGD",
    "Adam",
    "AdamW",
    "BinaryCrossEntropy",
    "Constant",
    "Cosine",
    "CrossEntropy",
    "DivergedError",
    "GradientError",
    "Huber",
    "Loss",
    "OnPlateau",
    "OneCycle",
    "Optimizer",
    "RMSProp",
    "Schedule",
    "StepDecay",
    "WarmUp",
    "check_gradients",
    "check_loss",
    "train",
    "trainer",
]
