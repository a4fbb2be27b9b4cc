"""A job, and the prepared job: its data, split, signature and network, and its rows as the network takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.artifact.mean_row import MeanRow
from model_store.errors import Fault, InputError
from model_store.nn import Sequential
from model_store.schema.signature import Signature
from training.available_memory import check_memory
from training.config.settings import JobSettings
from training.data.dataset import Dataset
from training.data.fitting.target_transform import find_invalid_target
from training.data.splitting import Split
from training.data.streaming.dataset import StreamedDataset
from training.encoded_rows import EncodedRows, mean_row
from training.engine.augmentation import AugmentedSamples, ImageAugmentation
from training.engine.loop import Samples
from training.errors import DataError
from training.evaluation.loss_metrics import TargetLoss
from training.network.specification import NetworkSpec
from training.pipeline.row_encoding import encode_compactly, make_samples
from training.pipeline.streaming_loader import BlockLoader

_ENCODED_BLOCK_ROWS, _ENCODED_BLOCK_VALUES = 4096, 1 << 22  # encoded at a time, in float64


@dataclass(frozen=True)
class Job:
    """The settings of a job file, and the folder that its paths are relative to. `source` names it in messages.

    has_network, has_train: False if the job file lacks the section. Without `[train]`, `prepare` fills in what `train
    init` writes for the table; for a network of the job, what `train init --fast` writes.
    """

    settings: JobSettings
    folder: Path
    source: str = "job"
    has_network: bool = True
    has_train: bool = True


@dataclass(frozen=True)
class PreparedJob:
    """Everything that training needs; `x_...` are encoded rows. The settings of `job` include inferred values.

    Training rows of a streamed job are in `block_loader`; `dataset` and `split` then have only the others.
    `initial` holds networks to start from, one for each network that is trained; without, weights are drawn.
    """

    job: Job
    dataset: Dataset
    split: Split
    signature: Signature
    network_spec: NetworkSpec
    notes: list[str]
    block_loader: BlockLoader | None = None
    baseline_targets: NDArray[Any] = field(default_factory=lambda: np.empty(0))  # of a stream
    baseline_weights: NDArray[np.float64] | None = None
    initial: Sequence[Sequential] = ()

    @property
    def stream(self) -> StreamedDataset | None:
        return None if self.block_loader is None else self.block_loader.dataset

    @property
    def target_loss(self) -> TargetLoss:
        """The loss of a regression, which some of its metrics belong to."""
        return TargetLoss(self.network_spec.loss, self.network_spec.quantile)

    @cached_property
    def samples(self) -> Samples:
        """The training rows and their targets, as the network takes them."""
        if self.block_loader is not None:
            return self._augmented(self.block_loader)
        return self._augmented(make_samples(self.x_training, self.encode_learned(self.split.training)))

    def _augmented(self, samples: Samples) -> Samples:
        section = self.job.settings.train
        if section.augment is None:
            return samples
        augmentation = ImageAugmentation(section.augment, self.signature.inputs[0].shape, section.seed)
        return AugmentedSamples(samples, augmentation)

    @cached_property
    def constant_features(self) -> NDArray[np.bool_]:
        """A mask of the features with one value in all training rows, or with the rounding errors of a constant."""
        rounded = [np.full(column.width, column.is_constant) for column in self.signature.inputs]
        found: NDArray[np.bool_] = self.samples.constant_features | np.concatenate(rounded)
        return found

    @property
    def mean(self) -> MeanRow:
        """The mean of the training rows."""
        return mean_row(self.x_training, self.signature) if self.block_loader is None else self.block_loader.mean

    @property
    def sizes(self) -> dict[str, int]:
        """The number of rows of each part."""
        training = len(self.split.training if self.block_loader is None else self.block_loader)
        sizes = {"training": training, "validation": len(self.split.validation), "test": len(self.split.test)}
        return sizes | ({"calibration": held} if (held := len(self.split.calibration)) else {})

    @cached_property
    def x_training(self) -> EncodedRows:
        return self.encode_rows(self.split.training)

    @cached_property
    def x_validation(self) -> EncodedRows:
        return self.encode_rows(self.split.validation)

    @cached_property
    def x_evaluation(self) -> EncodedRows:
        return self.encode_rows(self.split.test) if len(self.split.test) else self.x_training

    def encode_rows(self, rows: NDArray[np.int64]) -> EncodedRows:
        """Return these rows as the network takes them, (n, features): compact if they are large and mostly one-hot."""
        if self.job.settings.train.batch_size != "all":
            compact = encode_compactly(self.signature, self.dataset.inputs, rows, self.network_spec.dtype)
            if compact is not None:
                return compact
        check_memory(len(rows) * self.signature.width * np.dtype(self.network_spec.dtype).itemsize)
        encoded = np.empty((len(rows), self.signature.width), self.network_spec.dtype)
        size = max(1, min(_ENCODED_BLOCK_ROWS, _ENCODED_BLOCK_VALUES // self.signature.width))
        for start in range(0, len(rows), size):
            block = rows[start : start + size]
            inputs = {name: values[block] for name, values in self.dataset.inputs.items()}
            try:
                encoded[start : start + len(block)] = self.signature.encode_columns(inputs, self.network_spec.dtype)
            except InputError as error:
                raise self._locate_faults(error, block) from error
        return encoded

    def weights(self, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Return the weights of these rows, of mean 1, or None if the job has none."""
        column = self.job.settings.data.weight
        if column is None or not len(rows):
            return None
        found = np.array(self.dataset.extra[column], object)[rows].astype(np.float64)
        return np.asarray(found / found.mean())

    def encode_learned(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the targets of these rows as the loss takes them: the outputs, and the weights in a column of theirs.

        See `RowWeighted`.
        """
        targets, weights = self.encode_targets(rows), self.weights(rows)
        if not self.network_spec.weighted:
            return targets
        column = np.empty(0) if weights is None else weights
        return np.column_stack([targets, column]).astype(targets.dtype)

    def encode_targets(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the targets of these rows as the outputs that the network learns, (n, outputs)."""
        targets, dtype = self.dataset.targets[rows], self.network_spec.dtype
        if fault := find_invalid_target(self.signature.output, targets):
            row, target, problem, fix = fault
            location = f"{self.dataset.location(int(rows[row]))}, column {self.dataset.target_names[target]}"
            raise DataError(self.dataset.name, [Fault(location, problem, fix)])
        with np.errstate(over="ignore"):
            encoded = self.network_spec.encode_targets(targets, self.signature.output)
        if len(invalid := np.argwhere(~np.isfinite(encoded))):
            row, target = invalid[0]
            location = f"{self.dataset.location(int(rows[row]))}, column {self.dataset.target_names[target]}"
            problem = f"expected a number that fits {dtype}, found {targets[row, target]:g}"
            fix = "write scale = 'standard' in [data], or dtype = 'float64' in [network]"
            raise DataError(self.dataset.name, [Fault(location, problem, fix)])
        if wrong := self.network_spec.find_invalid_target(encoded):
            row, problem, fix = wrong
            location = f"{self.dataset.location(int(rows[row]))}, column {self.dataset.target_names[0]}"
            raise DataError(self.dataset.name, [Fault(location, problem, fix)])
        return encoded

    def instances(self, rows: NDArray[np.int64]) -> list[Any]:
        """Return these rows as a client sends them to the service: lists in column order, or nested arrays."""
        values = [column.to_json(self.dataset.inputs[column.name][rows]) for column in self.signature.inputs]
        return values[0] if self.signature.inputs[0].is_whole_row else list(map(list, zip(*values, strict=True)))

    def labels(self, rows: NDArray[np.int64]) -> list[Any]:
        """Return the true targets of these rows: labels, lists of labels, numbers, or `{name: number}` for several."""
        targets = self.dataset.targets[rows]
        if self.dataset.classes:
            return [self.dataset.labels[i] for i in targets]
        if self.dataset.labels:
            return [[self.dataset.labels[i] for i in np.flatnonzero(row)] for row in targets]
        if len(self.dataset.target_names) == 1:
            flat: list[Any] = targets[:, 0].tolist()
            return flat
        return [dict(zip(self.dataset.target_names, row, strict=True)) for row in targets.tolist()]

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the model, bit for bit: the job without `[publish]` and `[search]`, and the data."""
        job = {name: section for name, section in self.job.settings.as_dict().items() if name != "publish"}
        data = {"sha256": self.dataset.sha256, "rows": sum(self.sizes.values())}
        if (test_file := self.dataset.test_file) is not None:
            data |= {"test_sha256": test_file.sha256}
        return {"job": job, "data": data}

    @property
    def evaluation_instances(self) -> list[Any]:
        """The rows that the metrics are computed on: the test rows, or with `test = 0` the training rows."""
        return self.instances(self.split.evaluation_rows)

    @property
    def evaluation_labels(self) -> list[Any]:
        return self.labels(self.split.evaluation_rows)

    def _locate_faults(self, error: InputError, rows: NDArray[np.int64]) -> DataError:
        """Turn an encoding error into faults with the lines of the file, and a fix in the job file."""
        faults = []
        for fault in error.faults:
            _, row, *column = fault.location.split(".", 2)
            location = self.dataset.location(int(rows[int(row)])) + "".join(f", column {name}" for name in column)
            fix = fault.fix
            if "expected a number that fits" in fault.problem:
                fix = "correct the value, or write dtype = 'float64' in [network]"
            faults.append(Fault(location, fault.problem, fix))
        return DataError(self.dataset.name, faults, error.total)
