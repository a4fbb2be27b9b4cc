"""An example row of a model and its prediction: a real row if the artifact has one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model_store.artifact.model import Model
from model_store.utils.values import integral_floats_to_ints


@dataclass(frozen=True, eq=False)
class ExampleRequest:
    instance: Any
    prediction: Any


def make_example(model: Model) -> ExampleRequest:
    """Return the first golden row with its recorded prediction; without golden rows, predict a typical row."""
    columns = model.signature.inputs
    instance = model.golden.instances[0] if model.golden else [column.typical_value() for column in columns]
    if isinstance(instance, list) and not columns[0].is_whole_row:
        instance = dict(zip(model.signature.names, integral_floats_to_ints(instance), strict=True))
    elif not model.golden:
        instance = instance[0]
    if model.golden:
        return ExampleRequest(instance, model.signature.decode(model.golden.outputs[:1])[0])
    return ExampleRequest(instance, model.predict([instance])[0])
