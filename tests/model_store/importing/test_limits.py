"""The limits of an import that docs/imports.md lists are those of the code."""

import pytest

from model_store.importing import budget, files, keras_file, publication
from model_store.importing.onnx import file as onnx_file
from model_store.importing.onnx import graph
from model_store.importing.sklearn import pipeline, skops_file
from model_store.nn.config_fields import MAX_SAMPLE_VALUES
from tests.test_arrows import ROOT

MIB = 1 << 20
LIMITS = [
    f"members of an archive | {files._MAX_MEMBERS:,}",
    f"weights of a convolution | {MAX_SAMPLE_VALUES:,} | all",
    f"in pipelines | {pipeline._MAX_DEPTH} |",
    f"`schema.json`, unpacked | {skops_file.MAX_SCHEMA_BYTES // MIB} MiB |",
    f"{files.MAX_RATIO} times the bytes of the file, at least {files.MIN_UNPACKED_BYTES // MIB} MiB",
    f"| layers | {keras_file._MAX_LAYERS:,} |",
    f"`metadata.json` | {keras_file._MAX_CONFIG_BYTES // MIB} MiB each",
    f"| nodes, and tensors | {onnx_file.MAX_NODES:,} each |",
    f"counted before the file is parsed | {onnx_file.MAX_STRUCTURE_BYTES // MIB} MiB |",
    f"{budget.FREE_VALUES:,} and {budget.VALUES_PER_BYTE} for each byte of the file",
    f"category counts {budget.FEATURE_VALUES}, an input column {budget.COLUMN_VALUES}.",
    f"more than {graph.MAX_ROW_VALUES:,} values, and one for each byte",
    f"as {publication._MAX_COMPARED_VALUES:,} values allow, at most {publication._COMPARED_ROWS}.",
]


@pytest.mark.parametrize("limit", LIMITS)
def test_the_page_has_each_limit_of_the_code(limit: str) -> None:
    page = " ".join((ROOT / "docs/imports.md").read_text(encoding="utf-8").split())
    assert limit in page
