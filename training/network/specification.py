"""The network's specification: sizes, output, loss and encoded targets for a job's settings and a signature.

Input and output sizes follow from the signature, the last activation from the task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import Fault
from model_store.nn import Clip, Sequential
from model_store.schema.signature import ClassificationOutput, MultiLabelOutput, Output, RegressionOutput, Signature
from training.config.layer_spec import LayerSpec, needs_images
from training.config.settings import JobSettings, TrainSection
from training.engine.batch_checks import check_batch_norm
from training.errors import JobError
from training.losses import LOSSES, Loss, RowWeighted
from training.network.builder import build_modules
from training.network.feature_kinds import FeatureKinds
from training.network.heads import classification_head, multi_label_head, regression_head


@dataclass(frozen=True)
class NetworkSpec:
    """The specification of a network, before weights are drawn. `output` is None for no last activation."""

    layers: Sequence[LayerSpec]
    initializer: str | None
    dtype: str
    input_shape: tuple[int, ...]
    output_size: int
    output: str | None
    loss: str
    source: str = "job"
    class_weights: tuple[Any, ...] | None = None  # of several labels (2, labels)
    quantile: float | None = None
    label_smoothing: float | None = None
    clip_outputs: bool = False
    weighted: bool = False
    features: FeatureKinds = field(default_factory=FeatureKinds)

    def build(self, rng: np.random.Generator) -> Sequential:
        """Build the network. `rng` draws the initial weights, and during training the dropout masks."""
        last = [] if self.output in (None, "identity") else [self.output]
        layers: list[LayerSpec] = [*self.layers, self.output_size, *last]
        modules = build_modules(
            layers,
            self.input_shape,
            self.features,
            dtype=self.dtype,
            rng=rng,
            initializer=self.initializer,
            source=self.source,
        )
        if self.clip_outputs:
            modules.append(Clip(self.output_size, dtype=np.dtype(self.dtype)))
        return Sequential(modules)

    def criterion(self, *, smoothed: bool = True) -> Loss:
        """Return the loss with its settings; not `smoothed`, without label smoothing, as rows are judged."""
        smoothing = self.label_smoothing if smoothed else None
        settings = {"weights": self.class_weights, "quantile": self.quantile, "label_smoothing": smoothing}
        loss = LOSSES[self.loss](**{name: value for name, value in settings.items() if value is not None})
        return RowWeighted(loss) if self.weighted else loss

    def encode_targets(self, targets: NDArray[Any], output: Output) -> NDArray[Any]:
        """Return targets (see `Dataset`) as the outputs that the network learns, (n, outputs)."""
        if isinstance(output, RegressionOutput):
            return output.encode(targets).astype(self.dtype)
        if isinstance(output, MultiLabelOutput):
            return targets.astype(self.dtype)
        if self.output_size == 1:
            return targets.reshape(-1, 1).astype(self.dtype)
        one_hot: NDArray[Any] = np.eye(self.output_size, dtype=self.dtype)[targets]
        return one_hot

    def find_invalid_target(self, encoded: NDArray[Any]) -> tuple[int, str, str] | None:
        """Return the first row whose encoded targets the loss cannot take, the problem and a fix; None if all fit."""
        loss = replace(self, weighted=False).criterion()
        invalid = np.flatnonzero(loss.find_invalid_targets(encoded).any(axis=1))
        if not len(invalid):
            return None
        return (
            int(invalid[0]),
            f"expected a target {loss.target_range} for the loss '{self.loss}'",
            "use 'mse', for example",
        )

    def resolved(self, settings: JobSettings) -> JobSettings:
        """Return the settings with inferred values filled in."""
        network = replace(settings.network, output=self.output or "identity")
        return replace(settings, network=network, train=replace(settings.train, loss=self.loss))


def specify_network(settings: JobSettings, signature: Signature, source: str = "job") -> NetworkSpec:
    """Return the network's specification. JobError if loss or output do not fit the task, or layers the data."""
    network = settings.network
    initializer = network.initializer or ("lecun_normal" if network.parametrization == "ntk" else None)
    output: str | None
    if isinstance(signature.output, ClassificationOutput):
        output, loss = classification_head(settings, len(signature.output.labels), source)
        size = 1 if output == "sigmoid" else len(signature.output.labels)
    elif isinstance(signature.output, MultiLabelOutput):
        output, loss = multi_label_head(settings, source)
        size = len(signature.output.labels)
    else:
        output, loss = regression_head(settings, source)
        size = len(signature.output.names)
    shape = _image_shape(signature, source) if needs_images(network.layers) else (signature.width,)
    spec = NetworkSpec(
        network.layers,
        initializer,
        network.dtype,
        shape,
        size,
        output,
        loss,
        source,
        quantile=settings.train.quantile,
        label_smoothing=settings.train.label_smoothing,
        clip_outputs=bool(network.clip_outputs),
        features=FeatureKinds.of(signature),
    )
    if len(shape) > 1:
        replace(spec, initializer="zeros").build(np.random.default_rng(0))  # JobError if shapes do not fit
    return spec


def check_batches(spec: NetworkSpec, section: TrainSection, rows: int) -> list[str]:
    """Return a note if the last batch has too few rows for batch_norm. JobError if all batches have."""
    if "batch_norm" not in spec.layers:
        return []
    network = replace(spec, initializer="zeros").build(np.random.default_rng(0))
    try:
        note = check_batch_norm(network, rows, rows if section.batch_size == "all" else int(section.batch_size))
    except ValueError as error:
        fix = "write a batch_size of 2 or more, or use layer_norm"
        raise JobError(spec.source, [Fault("train.batch_size", str(error), fix)]) from error
    return [] if note is None else [note]


def _image_shape(signature: Signature, source: str) -> tuple[int, ...]:
    shape = signature.inputs[0].shape
    if len(shape) == 2:
        return (*shape, 1)
    if len(shape) != 3:
        found = f"arrays of shape {shape}" if shape else "columns of a table"
        fix = "conv and pool need arrays of (height, width) or (height, width, channels)"
        raise JobError(source, [Fault("network.layers", f"expected images, found {found}", fix)])
    return shape
