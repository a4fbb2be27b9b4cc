"""A version that predicts rows: one of the store, or one of a running service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from model_store.artifact.explanation import explain, read_asked
from model_store.cli.group import resolve_reference
from model_store.cli.predict.explanations import at_row, is_explanation
from model_store.errors import Fault, InputError, StoreError
from model_store.registry.store import open_store
from model_store.schema.columns import KINDS, Column
from model_store.schema.signature import (
    ClassificationOutput,
    MultiLabelOutput,
    Output,
    RegressionOutput,
    Signature,
)
from model_store.utils.values import describe_value, is_finite_number

_MAX_SHOWN_CHARACTERS = 200  # of what a service sent, in a message


@dataclass(frozen=True)
class Predictor:
    """A version of a model, loaded from the store or served elsewhere."""

    name: str
    version: int
    signature: Signature
    predict: Callable[[list[Any]], list[Any]]
    explain: Callable[[list[Any], Any], tuple[list[Any], list[dict[str, Any]]]]  # predictions, explanations


def predictor_from_store(location: str, model: str) -> Predictor:
    store = open_store(location)
    name, number = resolve_reference(store, model)
    version, loaded = store.load(name, number)

    def explain_rows(rows: list[Any], wanted: Any) -> tuple[list[Any], list[dict[str, Any]]]:
        asked = read_asked(wanted, loaded)
        inputs = loaded.encode(rows)
        outputs = loaded.network(inputs)
        return loaded.signature.decode(outputs), explain(loaded, inputs, outputs, asked).as_json()

    return Predictor(name, version.number, loaded.signature, loaded.predict, explain_rows)


def predictor_from_service(url: str, key: str | None, model: str) -> Predictor:
    """Pin the version, so that all batches use the same one even if another is published meanwhile."""
    import forward_pass_client as fp  # noqa: PLC0415 - only --url needs HTTP

    @contextmanager
    def own_errors() -> Iterator[None]:
        try:
            yield
        except fp.InputError as e:
            raise InputError([Fault(*fault) for fault in e.faults]) from e
        except fp.ServiceError as e:
            fix = "; set FORWARD_PASS_KEY or --key" if e.status == HTTPStatus.UNAUTHORIZED else ""
            raise StoreError(f"{e}{fix}") from e

    name, _, ref = model.partition("/")
    with own_errors():
        client = fp.Client(url, key=key)
        metadata = client.model(name, ref or None)
    try:
        number, signature = _read_metadata(metadata)
        explained = max(1, int(metadata.get("explain", {}).get("max_rows", 1)))
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as e:
        found = f"something else: {type(e).__name__}: {e}"[:_MAX_SHOWN_CHARACTERS]
        raise StoreError(f"{url}: expected the version, inputs and output of the model {name}, found {found}") from e

    @own_errors()
    def predict_batch(batch: list[Any], wanted: Any = None) -> list[Any]:
        predictions = client.predict(name, batch, version=number, explain=wanted)
        for prediction in predictions:
            if not _is_prediction(prediction, signature.output):
                found = describe_value(prediction)
                raise StoreError(f"{url}: expected predictions of the model {name}, found {found} among them")
        return list(predictions)

    def explain_rows(batch: list[Any], wanted: Any) -> tuple[list[Any], list[dict[str, Any]]]:
        """Send as many rows as the service explains at a time."""
        predictions: list[Any] = []
        explanations: list[dict[str, Any]] = []
        for start in range(0, len(batch), explained):
            try:
                predictions += predict_batch(batch[start : start + explained], wanted)
            except InputError as error:
                raise at_row(error, start) from error
            if not all(is_explanation(each, signature) for each in client.explanations):
                raise StoreError(f"{url}: expected explanations of the model {name}, found something else")
            explanations += client.explanations
        return predictions, explanations

    return Predictor(name, number, signature, predict_batch, explain_rows)


def _read_metadata(metadata: Mapping[str, Any]) -> tuple[int, Signature]:
    """Return version and signature of a model as a service describes it. Many types of exception if it is no model."""
    number = metadata["version"]
    inputs = tuple(map(_column_from_metadata, metadata["inputs"]))
    output = _output_from_metadata(metadata["output"])
    names = [column.name for column in inputs]
    names += output.names if isinstance(output, RegressionOutput) else [output.name]
    if type(number) is not int or not inputs or not all(isinstance(name, str) for name in names):
        raise ValueError("expected a whole number, and columns with names")
    if isinstance(output, MultiLabelOutput) and not isinstance(output.separator, str | None):
        raise ValueError("expected a separator that is text")
    if not all(type(size) is int and size > 0 for column in inputs for size in column.shape):
        raise ValueError("expected shapes of whole numbers above 0")
    return number, Signature(inputs, output)


def _is_prediction(found: Any, output: Output) -> bool:
    """Return whether this is a prediction of a model with this output, as far as its form shows."""
    if isinstance(output, RegressionOutput):
        numbers = {output.names[0]: found} if len(output.names) == 1 else found
        return _has_numbers(numbers, output.names)
    if not isinstance(found, dict) or not _has_numbers(found.get("probabilities"), [str(one) for one in output.labels]):
        return False
    if isinstance(output, MultiLabelOutput):
        labels = found.get("labels")
        return isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    return isinstance(found.get("label"), str | int)


def _has_numbers(found: Any, names: Sequence[str]) -> bool:
    return isinstance(found, dict) and list(found) == list(names) and all(map(is_finite_number, found.values()))


def _column_from_metadata(about: Mapping[str, Any]) -> Column:
    return KINDS[about["kind"]].from_public_details(about)


def _output_from_metadata(about: Mapping[str, Any]) -> Output:
    if about["kind"] == "labels":
        return MultiLabelOutput(about["name"], tuple(about["labels"]), about["separator"], about["threshold"])
    if about["kind"] == "classes":
        return ClassificationOutput(about["name"], tuple(about["labels"]), threshold=about.get("threshold"))
    return RegressionOutput(tuple(about["names"]), (0.0,) * len(about["names"]), (1.0,) * len(about["names"]))
