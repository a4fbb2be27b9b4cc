"""Training: the article's losses, optimizers and loop, and the jobs that run them from data to artifact."""

from training import trainer
from training.descent import Optimizer
from training.gradient_check import GradientError, check_gradients, check_loss
from training.losses import MAE, MSE, BinaryCrossEntropy, CrossEntropy, Huber, Loss
from training.optimizers import SGD, Adam, AdamW, RMSProp
from training.schedules import Constant, Cosine, OneCycle, OnPlateau, Schedule, StepDecay, WarmUp
from training.trainer import DivergedError, train

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
