"""An example row of a model and its prediction: a real row if the artifact has one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from model_store.artifact.model import Model
from model_store.schema.columns import ArrayColumn, CategoryColumn, NumberColumn
from model_store.schema.row_parser import integral_floats_to_ints
from service.registry.column_stats import column_range


@dataclass(frozen=True, eq=False)
class ExampleRequest:
    instance: Any
    prediction: Any


def make_example(model: Model) -> ExampleRequest:
    """Return the first golden row with its recorded prediction; without golden rows, predict a typical row."""
    columns = model.signature.inputs
    instance = model.golden.instances[0] if model.golden else [_typical_value(column) for column in columns]
    if isinstance(instance, list) and not isinstance(columns[0], ArrayColumn):
        instance = dict(zip(model.signature.names, integral_floats_to_ints(instance), strict=True))
    elif not model.golden:
        instance = instance[0]
    if model.golden:
        return ExampleRequest(instance, model.signature.decode(model.golden.outputs[:1])[0])
    return ExampleRequest(instance, model.predict([instance])[0])


def _typical_value(column: NumberColumn | CategoryColumn | ArrayColumn) -> Any:
    """Return a typical value of training."""
    if isinstance(column, CategoryColumn):
        return column.categories[0]
    if isinstance(column, ArrayColumn):
        middle = column.offset if column.low is None or column.high is None else (column.low + column.high) / 2
        return np.full(column.shape, middle).tolist()
    return float(column_range(column).get("mean") or column.offset)
