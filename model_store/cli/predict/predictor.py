"""A version that predicts rows: one of the store, or one of a running service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from model_store.artifact.asked_answers import read_asked_answers
from model_store.artifact.explanation import explain, read_asked
from model_store.cli.group import resolve_reference
from model_store.cli.predict.answers import RESPONSE_KEYS, are_answers
from model_store.cli.predict.explanations import at_row
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
    # Predictions, and the lists of a response beside them, for rows and keys of a request's body: see answers.py.
    answer: Callable[[list[Any], Mapping[str, Any]], tuple[list[Any], dict[str, list[Any]]]]


def predictor_from_store(location: str, model: str) -> Predictor:
    store = open_store(location)
    name, number = resolve_reference(store, model)
    version, loaded = store.load(name, number)

    def answer(rows: list[Any], wanted: Mapping[str, Any]) -> tuple[list[Any], dict[str, list[Any]]]:
        asked = read_asked_answers(wanted, loaded, "--")
        explained = read_asked(wanted["explain"], loaded) if "explain" in wanted else None
        inputs = loaded.encode(rows)
        outputs = loaded.network(inputs)
        answers, signature = asked.as_json(loaded, outputs), asked.signature(loaded)
        if explained is not None:
            answers["explanations"] = explain(loaded, inputs, outputs, explained, signature=signature).as_json()
        return signature.decode(outputs), answers

    return Predictor(name, version.number, loaded.signature, loaded.predict, answer)


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
    def predict_batch(batch: list[Any], wanted: Mapping[str, Any] = MappingProxyType({})) -> list[Any]:
        predictions = client.predict(name, batch, version=number, **wanted)
        for prediction in predictions:
            if not _is_prediction(prediction, signature.output):
                found = describe_value(prediction)
                raise StoreError(f"{url}: expected predictions of the model {name}, found {found} among them")
        return list(predictions)

    def answer(batch: list[Any], wanted: Mapping[str, Any]) -> tuple[list[Any], dict[str, list[Any]]]:
        """Send as many rows as the service explains at a time."""
        predictions: list[Any] = []
        answers: dict[str, list[Any]] = {}
        step = explained if "explain" in wanted else max(1, len(batch))
        for start in range(0, len(batch), step):
            part = batch[start : start + step]
            try:
                predictions += predict_batch(part, wanted)
            except InputError as error:
                raise at_row(error, start) from error
            found = {"explanations": client.explanations, "intervals": client.intervals, "sets": client.sets}
            if not are_answers(found, wanted, len(part), signature):
                expected = " and ".join(RESPONSE_KEYS[one] for one in wanted if one in RESPONSE_KEYS)
                raise StoreError(f"{url}: expected {expected} of the model {name}, found something else")
            for part_key, values in found.items():
                if values:
                    answers.setdefault(part_key, []).extend(values)
        return predictions, answers

    return Predictor(name, number, signature, predict_batch, answer)


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
