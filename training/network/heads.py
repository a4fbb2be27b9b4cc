"""The head of a network: last activation and loss of a classification, of several labels or of a regression."""

from __future__ import annotations

from dataclasses import replace

from model_store.errors import Fault
from model_store.nn.layers.activations import ACTIVATIONS
from model_store.schema.signature import RegressionOutput, Signature
from training.config.settings import JobSettings
from training.errors import JobError

_RANGE_LIMITED_ACTIVATIONS = {*ACTIVATIONS, "exp"} - {"identity", "leaky_relu"}
_POSITIVE_LOSSES = ("poisson", "gamma")
_CLASS_LOSSES = ("cross_entropy", "binary_cross_entropy")


def classification_head(settings: JobSettings, labels: int, source: str) -> tuple[str, str]:
    output, loss = settings.network.output, settings.train.loss
    faults = []
    if output not in (None, "softmax", "sigmoid"):
        fix = "remove it: the default for classifications is softmax"
        faults.append(Fault("network.output", f"expected 'softmax' or 'sigmoid', found '{output}'", fix))
    binary = output == "sigmoid" or (output is None and loss == "binary_cross_entropy")
    if binary and labels != 2:
        location = "network.output" if output == "sigmoid" else "train.loss"
        fix = "remove it: more classes need softmax and cross_entropy"
        faults.append(Fault(location, f"expected two classes, found {labels}", fix))
    wrong = "cross_entropy" if binary else "binary_cross_entropy"
    if loss == wrong and (binary or output == "softmax"):
        ending = "sigmoid" if binary else "softmax"
        faults.append(Fault("train.loss", f"'{wrong}' does not fit the output '{ending}'", "remove it"))
    if settings.train.class_weights is not None and loss not in (None, *_CLASS_LOSSES):
        fix = "remove the loss or the weights"
        faults.append(Fault("train.class_weights", f"expected a loss with class weights, found '{loss}'", fix))
    if settings.train.label_smoothing is not None and loss not in (None, *_CLASS_LOSSES):
        fix = "remove the loss or the smoothing"
        faults.append(Fault("train.label_smoothing", f"expected a loss of probabilities, found '{loss}'", fix))
    if loss in _POSITIVE_LOSSES or loss == "pinball":
        faults.append(Fault("train.loss", f"'{loss}' is only for regressions, found a classification", "remove it"))
    if settings.data.target_transform is not None:
        faults.append(Fault("data.target_transform", "only for regressions, found a classification", "remove it"))
    if settings.network.clip_outputs:
        problem = "only for regressions, found a classification"
        faults.append(Fault("network.clip_outputs", problem, "remove it"))
    if faults:
        raise JobError(source, faults)
    return ("sigmoid", loss or "binary_cross_entropy") if binary else ("softmax", loss or "cross_entropy")


def multi_label_head(settings: JobSettings, source: str) -> tuple[str, str]:
    output, loss = settings.network.output, settings.train.loss
    faults = []
    if output not in (None, "sigmoid"):
        fix = "remove it: each label has a probability of its own"
        faults.append(Fault("network.output", f"expected 'sigmoid' for several labels, found '{output}'", fix))
    if loss not in (None, "binary_cross_entropy"):
        problem = f"expected 'binary_cross_entropy' for several labels, found '{loss}'"
        faults.append(Fault("train.loss", problem, "remove it"))
    for key, value in (
        ("data.target_transform", settings.data.target_transform),
        ("network.clip_outputs", settings.network.clip_outputs),
    ):
        if value:
            faults.append(Fault(key, "only for regressions, found several labels", "remove it"))
    if faults:
        raise JobError(source, faults)
    return "sigmoid", "binary_cross_entropy"


def regression_head(settings: JobSettings, source: str) -> tuple[str | None, str]:
    output, loss = settings.network.output, settings.train.loss
    faults = []
    if settings.data.target_transform is not None and loss in _POSITIVE_LOSSES:
        problem = f"'{loss}' is a loss of means of targets that are not transformed"
        faults.append(Fault("data.target_transform", problem, "remove it, or use 'mse', for example"))
    if output == "softmax":
        fix = f"use one of {', '.join(ACTIVATIONS)}, or remove it"
        faults.append(Fault("network.output", "'softmax' is only for classifications, found a regression", fix))
    elif loss in _POSITIVE_LOSSES and output not in (None, "exp"):
        fix = "remove it: the default for this loss is exp"
        faults.append(Fault("network.output", f"'{loss}' needs positive outputs, found '{output}'", fix))
    elif output in _RANGE_LIMITED_ACTIVATIONS and settings.data.scale != "none" and loss not in _POSITIVE_LOSSES:
        problem = f"'{output}' cannot produce all values of a standardised target"
        faults.append(Fault("network.output", problem, "remove it, or write scale = 'none' in [data]"))
    if loss in _CLASS_LOSSES:
        faults.append(
            Fault("train.loss", f"'{loss}' is only for classifications, found a regression", "use 'mse', for example")
        )
    if settings.train.label_smoothing is not None:
        problem = "only for classifications, found a regression"
        faults.append(Fault("train.label_smoothing", problem, "remove it"))
    if faults:
        raise JobError(source, faults)
    return "exp" if loss in _POSITIVE_LOSSES else output, loss or "mse"


def fit_positive_output(signature: Signature, loss: str | None) -> Signature:
    """Return the signature for a loss of positive targets: these are divided by their mean, but not shifted."""
    output = signature.output
    if loss not in _POSITIVE_LOSSES or not isinstance(output, RegressionOutput) or not any(output.offset):
        return signature
    means = tuple(mean if mean > 0 else 1.0 for mean in output.offset)
    return replace(signature, output=replace(output, offset=(0.0,) * len(means), scale=means))
