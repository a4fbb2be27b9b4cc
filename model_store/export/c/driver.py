"""A program that predicts the rows on its standard input with the C of a model, to check it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from model_store.export.base import ExportSource, parsed_columns
from model_store.schema.multi_label import MultiLabelOutput
from model_store.schema.outputs import ClassificationOutput, RegressionOutput

_DRIVER = """\
#include "%(name)s"
#include <stdio.h>
static const char kinds[] = {%(kinds)s};
int main(void) {
    static real input[INPUTS], output[OUTPUTS], found[%(found)d];
    static char text[%(longest)d];
    double number;
    int32_t length;
    for (;;) {
        for (int i = 0; i < %(columns)d; i++) {
            int result;
            if (kinds[i] == 't') {
                if (fread(&length, sizeof length, 1, stdin) != 1) return i > 0;
                if (length > 0 && fread(text, 1, (size_t)length, stdin) != (size_t)length) return 1;
                text[length < 0 ? 0 : length] = 0;
                result = %(text)s;
            } else {
                if (fread(&number, sizeof number, 1, stdin) != 1) return i > 0;
                result = %(number)s;
            }
            if (result != ENCODED) {
                fprintf(stderr, "column %%d: result %%d\\n", i, result);
                return 1;
            }
        }
        predict(input, output);
        %(labels)s
        fwrite(output, sizeof output, 1, stdout);
        fwrite(found, sizeof found, 1, stdout);
    }
}
"""


def driver(source: ExportSource, name: str, rows: Sequence[Any]) -> tuple[bytes, bytes]:
    """Return a program that predicts the rows on its standard input, and these rows."""
    signature = source.model.signature
    columns = signature.inputs
    parsed = parsed_columns(signature, rows)
    if columns[0].is_whole_row:
        data, kinds = np.ascontiguousarray(parsed[0], np.float64).tobytes(), "n" * signature.width
    else:
        kinds = "".join("t" if column.kind in ("category", "text") else "n" for column in columns)
        data = b"".join(
            _text_bytes(values[i]) if kind == "t" else struct.pack("=d", values[i])
            for i in range(len(rows))
            for kind, values in zip(kinds, parsed, strict=True)
        )
    longest = max(
        (len(value.encode()) for values in parsed if values.dtype == object for value in values if value), default=0
    )
    output = signature.output
    if isinstance(output, RegressionOutput):
        labels = "found[0] = 0;"
    elif isinstance(output, ClassificationOutput):
        labels = "found[0] = (real)predicted_label(output);"
    else:
        labels = "for (int i = 0; i < OUTPUTS; i++) found[i] = (real)has_label(output, i);"
    text = "encode_text(i, length < 0 ? NULL : text, input)" if "t" in kinds else "NOT_A_COLUMN"
    number = "encode_number(i, number, input)" if "n" in kinds else "NOT_A_COLUMN"
    main = _DRIVER % {
        "name": name,
        "kinds": ", ".join(map(str, map(ord, kinds))),
        "columns": len(kinds),
        "longest": longest + 1,
        "found": len(output.labels) if isinstance(output, MultiLabelOutput) else 1,
        "text": text,
        "number": number,
        "labels": labels,
    }
    return main.encode("ascii"), data


def _text_bytes(text: str | None) -> bytes:
    data = b"" if text is None else text.encode()
    return struct.pack("=i", -1 if text is None else len(data)) + data
