"""The target `c`: NAME.c, one C99 file without allocation, and NAME_test.c, which checks it on the golden rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from model_store.export.base import ExportSource, file_stem
from model_store.export.c import literals
from model_store.export.c.code import Code, Values
from model_store.export.c.columns import EncodingCode, add_encoding
from model_store.export.c.compiler import compile_and_run, find_compiler
from model_store.export.c.driver import driver
from model_store.export.c.golden_test import golden_test
from model_store.export.c.layers import add_network, layer_names
from model_store.export.c.outputs import add_output, output_count
from model_store.nn import Array
from model_store.schema.columns import KINDS
from model_store.schema.multi_label import MultiLabelOutput
from model_store.schema.outputs import ClassificationOutput, RegressionOutput

_HEAD = """\
/* {title}

   {reference}, SHA-256 {digest}
   {layers}

   Include this file in one source file of a C99 program, link it with -lm, and for each row

       {real} input[INPUTS], output[OUTPUTS];
{calls}
       predict(input, output);

   The encode functions return ENCODED, or another result for a value that the model rejects. {outputs}
   `predict` allocates nothing. It has static buffers, so one thread at a time may call it. Several models in a program:
   compile each with -DPREFIX=its_name_ and all names that other files see begin with that.

   RAM: {ram} bytes of static buffers, and {caller} of input and output
   Flash: {flash} bytes of constants, and the code */
"""
_PREFIX = """\
#ifdef PREFIX
#define JOINED(prefix, name) prefix##name
#define PREFIXED(prefix, name) JOINED(prefix, name)
{names}#endif
"""
_RESULTS = "enum result { ENCODED, VALUE_MISSING, UNKNOWN_CATEGORY, TOO_LARGE, NOT_A_TEXT, NOT_A_COLUMN };\n"


class CTarget:
    """One C99 file, and a program that tests it."""

    name: ClassVar[str] = "c"
    layers: ClassVar[frozenset[str]] = layer_names()
    columns: ClassVar[frozenset[str]] = frozenset(KINDS)

    def check_engine(self, source: ExportSource) -> None:
        """Raise ExportError without a compiler."""
        find_compiler()

    def files(self, source: ExportSource) -> dict[str, bytes]:
        """Return NAME.c and NAME_test.c. ExportError for a text that C cannot hold."""
        stem = file_stem(source.name)
        program = self._program(source)
        return {
            f"{stem}.c": program.encode("ascii"),
            f"{stem}_test.c": golden_test(source, f"{stem}.c").encode("ascii"),
        }

    def answer(self, source: ExportSource, files: Mapping[str, bytes], rows: Sequence[Any]) -> dict[str, Array]:
        """Return the predictions of the compiled C for valid rows. ExportError without a compiler."""
        output = source.model.signature.output
        count = output_count(source.model.signature)
        main, data = driver(source, f"{file_stem(source.name)}.c", rows)
        answers = compile_and_run({**files, "driver.c": main}, "driver.c", data)
        found = np.frombuffer(answers, source.model.network.dtype)
        found = found.reshape(len(rows), count + (count if isinstance(output, MultiLabelOutput) else 1))
        values, labels = found[:, :count], found[:, count:]
        if isinstance(output, RegressionOutput):
            return {"values": values.astype(np.float64)}
        if isinstance(output, ClassificationOutput):
            return {"probabilities": values, "label": np.array(output.labels, object)[labels[:, 0].astype(np.intp)]}
        return {"probabilities": values, "labels": labels != 0}

    def notes(self, source: ExportSource, files: Mapping[str, bytes]) -> list[str]:
        """Return the memory that the program takes."""
        text = files[f"{file_stem(source.name)}.c"].decode("ascii")
        found = re.findall(r"^   ((?:RAM|Flash): [^*]*?)(?: \*/)?$", text, re.MULTILINE)
        return [f"{line}." for line in found]

    def _program(self, source: ExportSource) -> str:
        model, signature = source.model, source.model.signature
        code = Code(model.network.dtype)
        encoding = add_encoding(code, signature)
        values = Values("input", model.network.input_shape or (signature.width,))
        outputs = add_network(code, model.network, values)
        output = add_output(code, signature, outputs)
        sizes = f"enum {{ INPUTS = {signature.width}, OUTPUTS = {output_count(signature)} }};\n"
        columns = "".join(
            f"    {one}, /* {literals.comment(name)} */\n"
            for one, name in zip(encoding.columns, signature.names, strict=False)
        )
        buffers = "".join(f"static real buffer_{i}[{size}];\n" for i, size in enumerate(code.buffers))
        body = "".join(f"    {line}\n" for line in code.lines)
        parts = [
            _head(source, code, encoding),
            "#include <float.h>\n#include <math.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <string.h>\n",
            _prefix(source, encoding),
            f"typedef {code.real} real;\n",
            sizes + (f"enum {{\n{columns}}};\n" if columns else "") + _RESULTS,
            *code.constants,
            encoding.text,
            *code.functions.values(),
            output,
            buffers,
            "/* From the features of a row to the model's output. */\n"
            f"void predict(const real *input, real *output) {{\n{body}}}\n",
        ]
        return "\n".join(filter(None, parts))


def _prefix(source: ExportSource, encoding: EncodingCode) -> str:
    """Return the macros that rename what other files see."""
    output = source.model.signature.output
    names = {
        "classes": ["labels", "predicted_label"],
        "labels": ["labels", "has_label"],
        "values": ["targets"],
    }[output.kind]
    names += [name for name in ("encode_number", "encode_text") if f"int {name}(" in encoding.text]
    lines = (f"#define {name} PREFIXED(PREFIX, {name})\n" for name in ("predict", *names))
    return _PREFIX.format(names="".join(lines))


def _head(source: ExportSource, code: Code, encoding: EncodingCode) -> str:
    model, signature = source.model, source.model.signature
    output = signature.output
    if encoding.columns:
        calls = [
            f"encode_text({name}, text, input);"
            if column.kind in ("category", "text")
            else f"encode_number({name}, number, input);"
            for column, name in zip(signature.inputs, encoding.columns, strict=True)
        ]
        calls = calls if len(calls) <= 40 else [*calls[:40], f"... {len(calls) - 40} more columns"]
    else:
        calls = ["for (int i = 0; i < INPUTS; i++) encode_number(i, values[i], input);"]
    if isinstance(output, RegressionOutput):
        outputs = "The output is the value of each of `targets`."
    elif isinstance(output, ClassificationOutput):
        which = "the most probable" if output.threshold is None else "the one by the threshold"
        outputs = f"The output is\n   the probability of each of `labels`; `predicted_label` returns {which}."
    else:
        outputs = "The output is\n   the probability of each of `labels`; `has_label` compares it with the threshold."
    layers = ", ".join(type(module).__name__ for module in model.network.modules)
    return _HEAD.format(
        title=literals.comment(model.description or source.name),
        reference=literals.comment(source.reference),
        digest=source.digest,
        real=code.real,
        layers=layers,
        calls="\n".join(f"       {call}" for call in calls),
        outputs=outputs,
        ram=code.ram_bytes,
        caller=code.dtype.itemsize * (signature.width + output_count(signature)),
        flash=code.constant_bytes,
    )


TARGET = CTarget()
