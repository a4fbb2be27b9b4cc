"""An example row of a model and its prediction. Whether it is a real row is up to `[model] examples` of its job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model_store.artifact.model import Model


@dataclass(frozen=True, eq=False)
class ExampleRequest:
    instance: Any
    prediction: Any


def make_example(model: Model) -> ExampleRequest | None:
    """Return the first golden row with its recorded prediction; without golden rows, predict a typical row.

    None if they are too large for an example: see `Model.example_row`.
    """
    instance = model.example_row
    if instance is None:
        return None
    if model.golden:
        return ExampleRequest(instance, model.signature.decode(model.golden.outputs[:1])[0])
    return ExampleRequest(instance, model.predict([instance])[0])
