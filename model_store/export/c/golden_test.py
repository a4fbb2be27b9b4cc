"""The test beside the C of a model: a program that predicts the golden rows, and returns 0 if the answers are equal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from model_store.export.agreement import TOLERANCE
from model_store.export.base import ExportSource, golden_rows, parsed_columns
from model_store.export.c import literals
from model_store.nn import Array
from model_store.schema.outputs import RegressionOutput
from model_store.schema.signature import Signature

_PROGRAM = """\
/* Predicts {count} golden rows of {reference} with {name}, and returns 0 if the answers are those of training.

   cc -std=c99 -o test {test} -lm && ./test */
#include "{name}"
#include <stdio.h>

enum {{ ROWS = {count} }};

{arrays}
{rows}
int main(void) {{
    static real input[INPUTS], output[OUTPUTS];
    int wrong = 0;
    for (int row = 0; row < ROWS; row++) {{
        if (encode_row(row, input) != ENCODED) {{
            printf("row %d: cannot be encoded\\n", row);
            return 1;
        }}
        predict(input, output);
        for (int i = 0; i < OUTPUTS; i++) {{
            double expected = expected_outputs[row * OUTPUTS + i], tolerance = tolerances[row * OUTPUTS + i];
            if (fabs(output[i] - expected) <= tolerance) continue;
            printf("row %d, output %d: expected %.9g, found %.9g\\n", row, i, expected, (double)output[i]);
            wrong++;
        }}
    }}
    printf("%d golden rows, %d wrong outputs\\n", ROWS, wrong);
    return wrong > 0;
}}
"""


def golden_test(source: ExportSource, name: str) -> str:
    """Return the program that tests the file `name`."""
    signature = source.model.signature
    golden = golden_rows(source.model)
    expected, tolerances = _expected(signature, golden.outputs)
    arrays = [
        literals.array("double", "expected_outputs", expected),
        literals.array("double", "tolerances", tolerances),
    ]
    rows = parsed_columns(signature, golden.instances)
    return _PROGRAM.format(
        count=len(golden.instances),
        reference=literals.comment(source.reference),
        name=name,
        test=f"{name.removesuffix('.c')}_test.c",
        arrays="\n".join(arrays),
        rows=_rows(signature, rows, len(golden.instances)),
    )


def _expected(signature: Signature, outputs: Array) -> tuple[Array, Array]:
    """Return the answers of the golden rows, and how far others may be off: as far as a network's output may be."""
    off = TOLERANCE * (1 + np.abs(outputs.astype(np.float64)))
    output = signature.output
    if isinstance(output, RegressionOutput):
        expected = output.decode(outputs)
        ends = [np.abs(output.decode(outputs.astype(np.float64) + sign * off) - expected) for sign in (-1, 1)]
        return expected, np.maximum(*ends) + TOLERANCE * 1e-3 * np.abs(expected)
    return np.asarray(signature.decode_arrays(outputs)["probabilities"], np.float64), np.broadcast_to(
        off, (len(outputs), off.shape[1])
    ) if off.shape[1] == len(output.labels) else np.repeat(off, 2, axis=1)


def _rows(signature: Signature, parsed: Sequence[Array], count: int) -> str:
    """Return the function `encode_row`, and the values of the rows."""
    columns = signature.inputs
    if columns[0].is_whole_row:
        values = literals.array("double", "golden_values", parsed[0])
        return values + (
            "\nstatic int encode_row(int row, real *input) {\n"
            "    int result = ENCODED;\n"
            "    for (int i = 0; i < INPUTS && result == ENCODED; i++)\n"
            "        result = encode_number(i, golden_values[row * INPUTS + i], input);\n"
            "    return result;\n"
            "}\n"
        )
    names = literals.identifiers("COLUMN_", signature.names)
    cases = []
    for i in range(count):
        calls = (
            f"        result |= {_call(column.kind, name, values[i])};\n"
            for column, name, values in zip(columns, names, parsed, strict=True)
        )
        cases.append(f"    case {i}:\n{''.join(calls)}        break;\n")
    return (
        "static int encode_row(int row, real *input) {\n"
        "    int result = ENCODED;\n"
        f"    switch (row) {{\n{''.join(cases)}    }}\n"
        "    return result;\n"
        "}\n"
    )


def _call(kind: str, name: str, value: Any) -> str:
    if kind in ("category", "text"):
        return f"encode_text({name}, {'NULL' if value is None else literals.string(value)}, input)"
    return f"encode_number({name}, {'NAN' if math.isnan(value) else literals.number(value)}, input)"
