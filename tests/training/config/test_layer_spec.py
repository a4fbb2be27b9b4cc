"""The layers of a job file: which are accepted, and the faults of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from training.errors import JobError
from training.pipeline.job import from_dict


def faults(layers: Any) -> dict[str, str]:
    with pytest.raises(JobError) as caught:
        from_dict({"model": {"name": "m"}, "data": {"path": "images.npz"}, "network": {"layers": layers}}, Path())
    return {
        fault.location.removeprefix("network.layers"): f"{fault.problem} ({fault.fix})" for fault in caught.value.faults
    }


@pytest.mark.parametrize(
    ("layer", "location", "expected"),
    [
        ("batchnorm", ".0", "did you mean 'batch_norm'?"),
        ("conv", ".0", "write { conv = 16, kernel = 3 }"),
        ("dropout", ".0", "write { dropout = 0.5 }"),
        ("softmax", ".0", "expected a size from 1 to 1048576, one of 'tanh'"),
        ({"cov": 16}, ".0", "did you mean 'conv'?"),
        ({}, ".0", "found none (such as { conv = 16, kernel = 3 })"),
        ({"conv": 16, "pool": 2}, ".0", "expected one of the keys 'conv', 'pool', 'average_pool', "),
        ({"conv": 16, "kernal": 3}, ".0.kernal", "unknown key (did you mean 'kernel'?)"),
        ({"conv": 0}, ".0.conv", "expected an integer from 1 to 65536, found 0"),
        ({"conv": 8, "padding": "1"}, ".0.padding", "write 1 without quotes"),
        ({"pool": 2, "kernel": 3}, ".0.kernel", "known keys: pool, stride, padding"),
        ({"dropout": 1.0}, ".0.dropout", "expected a number from 0 to below 1, found 1.0"),
        ({"parametric": "sellu"}, ".0.parametric", "did you mean 'selu'?"),
        ("embedding", ".0", "write { embedding = 8 }"),
        ({"periodic": 16, "size": 1}, ".0.size", "expected an integer from 2 to 1024, found 1"),
        ({"periodic": 16, "sigma": 0}, ".0.sigma", "expected a number above 0, found 0"),
        (None, ".0", "found null"),
    ],
)
def test_an_invalid_layer_is_one_fault_at_its_location(layer: Any, location: str, expected: str) -> None:
    found = faults([layer, "tanh"])
    assert list(found) == [location]
    assert expected in found[location]


def test_faults_of_several_layers_are_reported_at_once() -> None:
    assert list(faults([{"conv": 0, "stride": 0}, "rellu", {"pool": 2}, -1])) == [".0.conv", ".0.stride", ".1", ".3"]
