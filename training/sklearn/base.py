"""What classifier and regressor share: from X and y to a trained model, and from X to its outputs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from model_store import publishing
from model_store.artifact.answers import Answers
from model_store.artifact.mean_row import MeanRow
from model_store.artifact.model import Model
from model_store.nn import Average, Sequential
from model_store.registry.store import Store, Version, open_store
from model_store.schema.columns import FaultCollector, RowLocations
from model_store.schema.signature import Signature
from training.config.settings import DataSection
from training.data.memory_dataset import MemoryTable, as_texts, from_memory
from training.engine.early_stopping import EpochResult
from training.pipeline.incremental import IncrementalNetwork, train_epoch
from training.pipeline.job import Outcome, add_report, prepare, train_and_evaluate
from training.pipeline.prepared_job import Job
from training.sklearn.columns import Columns, read_columns
from training.sklearn.job_settings import make_job, without_schedule
from training.sklearn.row_order import order_rows
from training.sklearn.validation import Targets, as_value_errors, check_weights

_WEIGHT = "sample_weight"
_BLOCK_ROWS = 8192  # encoded at a time
_PARTIAL_FIT_KEY = 8  # of the generators of `partial_fit`, after those of a job


@dataclass(frozen=True)
class TrainedJob:
    """What `partial_fit` and `warm_start` continue from: the fitted preprocessing and the networks, but no row.

    `names` are those of the columns of X by place. `rows` and `columns` chose the network. `epochs` counts those of
    `partial_fit`, and `mean` is that of all rows that it was given.
    """

    names: list[str]
    rows: int
    columns: int
    signature: Signature
    kinds: dict[str, str]
    formats: dict[str, Any]
    networks: tuple[IncrementalNetwork, ...] = ()
    epochs: int = 0
    mean: MeanRow | None = None  # in pickles of earlier versions


class ForwardPassEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The base of both estimators. A subclass encodes the targets (`_encode_targets`) and decodes outputs."""

    _trained: TrainedJob
    model_: Model
    n_iter_: int
    loss_curve_: list[float]
    validation_loss_curve_: list[float]
    notes_: list[str]

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] | None = None,
        activation: str | None = None,
        *,
        dropout: float | None = None,
        loss: str | None = None,
        optimizer: str | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        batch_size: int | str | None = None,
        max_iter: int | None = None,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int | None = None,
        test_fraction: float = 0.0,
        ensemble: int | None = None,
        kinds: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        warm_start: bool = False,
        random_state: Any = 0,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.dropout = dropout
        self.loss = loss
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.test_fraction = test_fraction
        self.ensemble = ensemble
        self.kinds = kinds
        self.settings = settings
        self.warm_start = warm_start
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on rows X (n, features) with targets y: (n,), or (n, targets) of several.

        X: a DataFrame of pandas, polars or PyArrow, or an array. Missing values (None, NaN, NaT, NA) are filled in.
        sample_weight: (n,) of at least 0, how much each row counts. Whole numbers are copies of the row, fractions
            weights of its loss; rows of weight 0 are left out.

        ValueError for parameters, rows and targets that cannot be trained on, DivergedError if the loss is not finite.
        """
        before = getattr(self, "_trained", None) if self.warm_start else None
        columns = self._read(X, reset=before is None)
        weights = check_weights(sample_weight, len(columns))
        used = np.arange(len(columns)) if weights is None else np.flatnonzero(weights)
        targets = self._encode_targets(y, len(columns), used, known=before is not None)
        with as_value_errors():
            if before is None:
                self._train(columns, targets, used, weights)
            else:
                self._train(columns, targets, used, weights, before)
        return self

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any) -> Self:
        """Train one epoch on these rows; the first call fits the preprocessing too."""
        before = getattr(self, "_trained", None)
        columns = self._read(X, reset=before is None)
        weights = check_weights(sample_weight, len(columns))
        targets = self._encode_targets(y, len(columns), np.arange(len(columns)), known=True)
        used = np.arange(len(columns)) if weights is None else np.flatnonzero(weights)
        with as_value_errors():
            self._continue(columns, targets, used, weights, before)
        return self

    def publish(self, store: Store | str | os.PathLike[str], name: str, *, description: str | None = None) -> Version:
        """Publish the model as the next version of `name`, with its report. Return the version.

        The service answers rows with the same bits as `predict` and `predict_proba`: a row is an object by the names
        of columns, or a list in the order of `model_.signature.names`.

        store: a store, or its directory or URL. NotFittedError before `fit`, StoreError if it cannot be written.
        """
        check_is_fitted(self)
        store = store if isinstance(store, Store) else open_store(store)
        model = self.model_ if description is None else replace(self.model_, description=description)
        if model.golden is None:  # of `partial_fit`
            return publishing.publish_model(store, name, model)
        job = model.training["job"]
        named = {**job["model"], "name": name, "description": model.description}
        model = replace(model, training={**model.training, "job": {**job, "model": named}})
        version = store.publish(name, model)
        add_report(Outcome(model, {}, {}, None, self.n_iter_, self.n_iter_, version), store)
        return version

    # Targets, which the subclasses know -------------------------------------------------------------------------------

    def _encode_targets(self, y: Any, rows: int, used: NDArray[np.intp], *, known: bool) -> Targets:
        """Return the targets of all rows. The `used` ones decide the classes, unless these are `known` already."""
        raise NotImplementedError

    def _job_parameters(self) -> dict[str, Any]:
        """Return the parameters, with the names of a model for classes."""
        parameters: dict[str, Any] = self.get_params(deep=False)
        return parameters

    # Training ---------------------------------------------------------------------------------------------------------

    def _read(self, x: Any, *, reset: bool) -> Columns:
        """Return the columns of X; after `fit`, by the names that they had there. `read_columns` compares names."""
        columns = read_columns(self, x, reset=reset)
        return columns if reset else replace(columns, names=self._trained.names)

    def _train(
        self,
        columns: Columns,
        targets: Targets,
        used: NDArray[np.intp],
        weights: NDArray[np.float64] | None,
        before: TrainedJob | None = None,
    ) -> None:
        if len(used) == 1:
            raise ValueError("X: expected at least two rows of weight above 0, found 1 sample; add rows")
        table = self._table(columns, targets, used, weights)
        job, dataset = self._job(table, columns, targets, before)
        prepared = prepare(job, rows=dataset, signature=None if before is None else before.signature)
        if before is not None:
            count = job.settings.train.ensemble or 1
            if len(before.networks) != count:
                problem = f"expected {count} trained networks to start from, found {len(before.networks)}"
                raise ValueError(f"warm_start: {problem}; set ensemble={len(before.networks)}, or warm_start=False")
            prepared = replace(prepared, initial=tuple(one.network for one in before.networks))
        curve: list[EpochResult] = []
        outcome = train_and_evaluate(
            prepared,
            lambda epoch: curve.append(epoch) if epoch.network == 1 else None,
            diagnostics=len(prepared.split.test) > 0,
        )
        self.model_, self.n_iter_ = outcome.model, outcome.epochs
        self.notes_ = [*prepared.notes, *outcome.notes]
        self.loss_curve_ = [epoch.loss for epoch in curve]
        self.validation_loss_curve_ = [epoch.validation_loss for epoch in curve if epoch.validation_loss is not None]
        self._trained = TrainedJob(
            columns.names,
            len(dataset) if before is None else before.rows,
            len(dataset.kinds) if before is None else before.columns,
            prepared.signature,
            dict(dataset.kinds),
            dict(dataset.formats),
            tuple(IncrementalNetwork(network) for network in _members(outcome.model.network)),
            mean=prepared.mean,
        )

    def _continue(
        self,
        columns: Columns,
        targets: Targets,
        used: NDArray[np.intp],
        weights: NDArray[np.float64] | None,
        before: TrainedJob | None,
    ) -> None:
        table = self._table(columns, targets, used, weights)
        job, dataset = self._job(table, columns, targets, before)
        job = replace(job, settings=without_schedule(job.settings))
        prepared = prepare(job, rows=dataset, signature=None if before is None else before.signature)
        epochs = 0 if before is None else before.epochs
        seeds = np.random.SeedSequence(job.settings.train.seed, spawn_key=(_PARTIAL_FIT_KEY, epochs))
        starts: Sequence[IncrementalNetwork | None] = (None,) if before is None else before.networks
        results = [
            train_epoch(prepared, start, np.random.default_rng(seed))
            for start, seed in zip(starts, seeds.spawn(len(starts)), strict=True)
        ]
        networks = [one.network for one, _ in results]
        network = networks[0] if len(networks) == 1 else Sequential([Average(networks)])
        mean: MeanRow | None = prepared.mean
        if before is not None:
            mean = None if before.mean is None else MeanRow.joined([before.mean, prepared.mean])
        answers = None if mean is None else Answers(mean.row.astype(network.dtype))
        self.model_ = Model(network, prepared.signature, job.settings.model.description, answers=answers)
        self.notes_, self.n_iter_ = prepared.notes, getattr(self, "n_iter_", 0) + 1
        self.loss_curve_ = [*getattr(self, "loss_curve_", []), results[0][1]]
        self.validation_loss_curve_ = getattr(self, "validation_loss_curve_", [])
        self._trained = TrainedJob(
            columns.names,
            len(dataset) if before is None else before.rows,
            len(dataset.kinds) if before is None else before.columns,
            prepared.signature,
            dict(dataset.kinds),
            dict(dataset.formats),
            tuple(one for one, _ in results),
            epochs + 1,
            mean,
        )

    def _table(
        self, columns: Columns, targets: Targets, used: NDArray[np.intp], weights: NDArray[np.float64] | None
    ) -> MemoryTable:
        """Return the rows in their order; see `training.sklearn.row_order`."""
        ordered = order_rows(
            [values[used] for values in columns.values],
            targets.values[used],
            None if weights is None else weights[used],
        )
        rows = used[ordered.rows]
        extra: dict[str, list[str | None]] = {}
        if ordered.weights is not None:
            extra[_WEIGHT] = [repr(weight) for weight in ordered.weights.tolist()]
        return MemoryTable(
            "X",
            ordered.sha256,
            {name: values[rows] for name, values in zip(columns.names, columns.values, strict=True)},
            targets.names,
            targets.values[rows],
            targets.labels,
            rows.tolist(),
            extra,
        )

    def _job(
        self, table: MemoryTable, columns: Columns, targets: Targets, before: TrainedJob | None
    ) -> tuple[Job, Any]:
        """Return the job and the dataset of a table: its kinds are those of `before`, or inferred."""
        parameters = self._job_parameters()
        kinds = {**dict.fromkeys(columns.categories, "category"), **(parameters["kinds"] or {})}
        parameters["kinds"] = kinds or None
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = check_random_state(seed).randint(2**31)
        rows = len(table.rows) if before is None else before.rows
        classes = None if targets.classes is None else table.targets

        def make(count: int) -> Job:
            job = make_job(
                type(self).__name__, parameters, rows, count, targets.task, targets.names, classes, int(seed)
            )
            if not table.extra:
                return job
            return replace(job, settings=replace(job.settings, data=replace(job.settings.data, weight=_WEIGHT)))

        job = make(len(columns.names) if before is None else before.columns)
        section: DataSection = job.settings.data
        if before is not None:
            return job, from_memory(table, section, before.kinds, before.formats)
        dataset = from_memory(table, section)
        return job if len(dataset.kinds) == len(columns.names) else make(len(dataset.kinds)), dataset

    # Prediction -------------------------------------------------------------------------------------------------------

    def _decoded(self, X: Any) -> dict[str, NDArray[Any]]:
        """Return the predictions of all rows, as `Signature.decode_arrays` does."""
        check_is_fitted(self)
        columns = self._read(X, reset=False)
        model, by_name = self.model_, dict(zip(columns.names, columns.values, strict=True))
        outputs = []
        with as_value_errors(), _blas().limit(limits=1, user_api="blas"), np.errstate(all="ignore"):
            for start in range(0, len(columns), _BLOCK_ROWS):
                rows = slice(start, min(start + _BLOCK_ROWS, len(columns)))
                outputs.append(model.network(_encode(model, by_name, rows)))
            return model.signature.decode_arrays(np.concatenate(outputs))


@cache
def _blas() -> Any:
    """Return the controller of NumPy's BLAS, whose libraries take milliseconds to find."""
    return ThreadpoolController()


def _encode(model: Model, columns: dict[str, NDArray[Any]], rows: slice) -> NDArray[Any]:
    """Return the features of some rows, as the service encodes them."""
    faults, locations = FaultCollector(), RowLocations("X", range(rows.start, rows.stop))
    parsed = {}
    for column in model.signature.inputs:
        values = columns[column.name][rows]
        if values.dtype.kind != "f" or column.kind != "number":
            cells = [None if cell is None else column.parse_cell(cell) for cell in as_texts(values)]
            values = column.parse(cells, locations, faults)
        parsed[column.name] = values
    faults.raise_if_any()
    return model.signature.encode_columns(parsed, model.network.dtype, "X")


def _members(network: Sequential) -> list[Sequential]:
    """Return the networks of an ensemble, or the only one."""
    first = network.modules[0]
    return first.members if isinstance(first, Average) else [network]
