"""The classifier and the regressor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from model_store.schema.signature import ClassificationOutput
from training.sklearn.base import ForwardPassEstimator
from training.sklearn.validation import Targets, check_targets, target_names

_MAX_INTEGER = 2**53  # many JSON readers have no larger integers


class ForwardPassClassifier(ClassifierMixin, ForwardPassEstimator):  # type: ignore[misc]
    """A neural network for tables: one of several classes, or any number of labels of a row.

    Parameters of None are those that `train init` writes for a table of this size: an ensemble of networks like
    RealMLP below 2,500 rows, one network above. Numbers are standardised, categories and texts encoded, missing values
    filled in; the kinds of columns are inferred. The same rows, parameters and `random_state` give the same model, bit
    for bit, in any order of the rows.

    Parameters
    ----------
    hidden_layer_sizes : sequence of int
        The sizes of the dense layers.
    activation : str
        Of the dense layers, such as "relu", "mish" or "tanh".
    dropout : float
        The share of values that are dropped after each dense layer, from 0 to below 1.
    loss : str
        "cross_entropy", or for two classes "binary_cross_entropy".
    optimizer : str
        "sgd", "adam", "adamw" or "rmsprop".
    learning_rate : float
        The highest one, which a schedule lowers.
    weight_decay : float
    batch_size : int or "all"
    max_iter : int
        The most epochs that a network is trained.
    early_stopping : bool, default=True
        Whether rows are held out, and the weights of the epoch that is best on them are kept.
    validation_fraction : float, default=0.1
        The share of these rows. An ensemble holds out another part of the rows for each network.
    n_iter_no_change : int
        The epochs without improvement that end the training.
    test_fraction : float, default=0.0
        The share of the rows of `fit` that is not trained on. The record of a published version has the metrics and
        charts of these rows, as that of a job.
    ensemble : int
        The number of networks whose average is the model; 1 for a single one.
    class_weight : dict or "balanced"
        The weight of the rows of each class, 1 for those left out.
    kinds : dict
        The kinds of columns by name, where they should not be inferred: "number", "category", "date", "text". The
        columns of an array are named x0, x1, ...
    settings : dict
        Further keys of a job file by location, such as ``{"train.label_smoothing": 0.1}``.
    warm_start : bool, default=False
        Whether `fit` starts from the weights and the preprocessing of the last one.
    random_state : int, RandomState instance or None, default=0
        The seed of the job. None draws one from NumPy's global generator.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classes, as they are in y; the numbers of the columns of y for several labels.
    model_ : model_store.Model
        The network with its preprocessing, and the record of its training.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        The names of columns, if X has such.
    n_iter_ : int
        The epochs of the first network.
    loss_curve_, validation_loss_curve_ : list of float
        Of each epoch of the first network.
    notes_ : list of str
        What training noticed: columns that are left out, signs of leakage, settings without effect.

    Examples
    --------
    >>> classifier = ForwardPassClassifier().fit(frame, frame.pop("species"))  # doctest: +SKIP
    >>> classifier.publish("models", "penguins")  # doctest: +SKIP
    """

    classes_: NDArray[Any]

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
        class_weight: Mapping[Any, float] | str | None = None,
        kinds: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        warm_start: bool = False,
        random_state: Any = 0,
    ) -> None:
        super().__init__(
            hidden_layer_sizes,
            activation,
            dropout=dropout,
            loss=loss,
            optimizer=optimizer,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            batch_size=batch_size,
            max_iter=max_iter,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            test_fraction=test_fraction,
            ensemble=ensemble,
            kinds=kinds,
            settings=settings,
            warm_start=warm_start,
            random_state=random_state,
        )
        self.class_weight = class_weight

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train one epoch on these rows.

        The first call fits the preprocessing and draws the weights of a single network; after `fit`, all of its
        networks are trained further. The learning rate is constant and no row is held out.

        classes: all classes that y will ever have; needed in the first call, unless `fit` came before.
        """
        if not hasattr(self, "_trained"):
            if classes is None:
                raise ValueError("partial_fit: expected classes, all that y may have, in the first call")
            self.classes_ = np.unique(column_or_1d(np.asarray(classes)))
        elif classes is not None and not np.array_equal(self.classes_, np.unique(np.asarray(classes))):
            raise ValueError(f"partial_fit.classes: expected those of before, {self.classes_}, found {classes}")
        if isinstance(self.class_weight, str):
            problem = "'balanced' needs the frequencies of all rows, and partial_fit sees some of them"
            raise ValueError(f"class_weight: {problem}; pass a weight for each class")
        return self._partial_fit(X, y, sample_weight)

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return the probability of each class, (n, classes), in the network's precision.

        Of several labels, those that a row has each label.
        """
        return self._decoded(X)["probabilities"]

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row, (n,); of several labels, whether a row has each, (n, labels)."""
        found = self.predict_proba(X)
        output = self.model_.signature.output
        if isinstance(output, ClassificationOutput):
            return np.asarray(self.classes_[output.predicted(found)])
        return (found >= output.threshold).astype(np.int64)  # type: ignore[union-attr]

    def _encode_targets(self, y: Any, rows: int, used: NDArray[np.intp], *, known: bool) -> Targets:
        found = check_targets(y, rows, dtype=None)
        if found.dtype.kind == "f" and (given := np.asarray(y)).dtype.kind in "biu":  # nullable integers of pandas
            found = given
        check_classification_targets(found)
        if type_of_target(found, input_name="y") == "multilabel-indicator":
            self.classes_ = np.arange(found.shape[1])
            names = target_names(y, found.shape[1], "label")
            return Targets(found > 0, names, names)
        found = column_or_1d(found, warn=True)
        if not known:
            self.classes_ = np.unique(found[used])
        if len(self.classes_) < 2:
            raise ValueError(f"y: expected at least two classes, found 1 class, {self.classes_[0]!r}; add other rows")
        index = np.minimum(np.searchsorted(self.classes_, found), len(self.classes_) - 1)
        unknown = np.unique(found[used][self.classes_[index[used]] != found[used]])
        if len(unknown):
            raise ValueError(f"y: expected the classes {self.classes_}, found others: {unknown}")
        labels = tuple(_label(one) for one in self.classes_.tolist())
        if len(set(map(str, labels))) < len(labels):
            raise ValueError(f"y: expected classes that differ as texts, found {labels}")
        return Targets(index, target_names(y, 1, "class"), labels)

    def _job_parameters(self) -> dict[str, Any]:
        """Return the parameters with the classes of `class_weight` named as in the model."""
        parameters = super()._job_parameters()
        if isinstance(self.class_weight, Mapping):
            parameters["class_weight"] = {str(_label(_item(one))): w for one, w in self.class_weight.items()}
        return parameters

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.classifier_tags.multi_label = True
        return tags


class ForwardPassRegressor(RegressorMixin, ForwardPassEstimator):  # type: ignore[misc]
    """A neural network for tables that predicts one number, or several.

    Parameters and attributes are those of `ForwardPassClassifier`, without classes and their weights; also
    `feature_names_in_` and `n_features_in_`. `loss` is "mse", "mae", "huber", "poisson", "gamma" or "pinball", with
    ``settings={"train.quantile": 0.9}``. Targets are standardised for the network.
    """

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train one epoch on these rows.

        The first call fits the preprocessing, also that of the target, and draws the weights of a single network; after
        `fit`, all of its networks are trained further. The learning rate is constant and no row is held out.
        """
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the predicted numbers, (n,), or (n, targets) of several, in the units of y."""
        values = self._decoded(X)["values"]
        return values[:, 0] if values.shape[1] == 1 else values

    def _encode_targets(self, y: Any, rows: int, used: NDArray[np.intp], *, known: bool) -> Targets:
        del used, known
        found = check_targets(y, rows, dtype=np.float64)
        values = found.reshape(len(found), -1)
        return Targets(values, target_names(y, values.shape[1]))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.multi_output = True
        return tags


def _item(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _label(value: Any) -> str | int:
    """Return a class as the model names it: an integer, or a text."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and abs(value) <= _MAX_INTEGER else str(value)
