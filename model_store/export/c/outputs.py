"""Outputs as C: from what the network computes to probabilities, or to values in the units of the targets."""

from __future__ import annotations

from model_store.export.c.code import Code, Values
from model_store.export.c.literals import number
from model_store.schema.multi_label import MultiLabelOutput
from model_store.schema.outputs import ClassificationOutput, RegressionOutput
from model_store.schema.signature import Signature

_LARGEST = """\
/* The most probable label: an index of `labels`. */
int predicted_label(const real *output) {
    int label = 0;
    for (int i = 1; i < OUTPUTS; i++)
        if (output[i] > output[label]) label = i;
    return label;
}
"""
_SECOND = """\
/* The label: an index of `labels`; the second one if its probability reaches the threshold. */
int predicted_label(const real *output) {
    return output[1] >= %s;
}
"""
_QUANTILE = """\
/* The value at a score: linear between knots, constant outside. */
static double between_knots(double score, const double *values) {
    size_t i = 0;
    while (i + 2 < KNOTS && score >= scores[i + 1]) i++;
    double share = (score - scores[i]) / (scores[i + 1] - scores[i]);
    share = share < 0 ? 0 : share > 1 ? 1 : share;
    return share == 1 ? values[i + 1] : values[i] + share * (values[i + 1] - values[i]);
}
"""


def add_output(code: Code, signature: Signature, values: Values) -> str:
    """Add the lines of `predict` that write its output; return the C of names, and of a function for labels."""
    output = signature.output
    if isinstance(output, RegressionOutput):
        return _add_regression(code, output, values)
    code.texts("labels", map(str, output.labels))
    if isinstance(output, ClassificationOutput):
        if len(output.labels) == 2 and values.size == 1:
            code.run(f"output[0] = (real)(1 - {values.name}[0]);")
            code.run(f"output[1] = (real){values.name}[0];")
        else:
            code.run(f"for (size_t i = 0; i < OUTPUTS; i++) output[i] = (real){values.name}[i];")
        return _LARGEST if output.threshold is None else _SECOND % number(output.threshold)
    code.run(f"for (size_t i = 0; i < OUTPUTS; i++) output[i] = (real){values.name}[i];")
    return _threshold_function(output)


def _threshold_function(output: MultiLabelOutput) -> str:
    return (
        "/* Whether a row has a label, by its index of `labels`. */\n"
        "int has_label(const real *output, int label) {\n"
        f"    return output[label] >= {number(output.threshold)};\n"
        "}\n"
    )


def _add_regression(code: Code, output: RegressionOutput, values: Values) -> str:
    code.texts("targets", output.names)
    scale, offset = code.constant("scales", output.scale, "double"), code.constant("offsets", output.offset, "double")
    kind = "" if output.transform is None else output.transform.kind
    inverse, functions = "value", ""
    if kind == "log":
        inverse = "exp(value)"
    elif kind == "log1p":
        inverse = "(value > 0 ? expm1(value) : value - value)"
    elif output.transform is not None:
        code.constant("scores", output.transform.scores, "double")
        code.constant("knots", output.transform.values, "double")
        functions = f"enum {{ KNOTS = {len(output.transform.scores)} }};\n\n{_QUANTILE}"
        inverse = "between_knots(value, knots + i * KNOTS)"
    code.run("for (size_t i = 0; i < OUTPUTS; i++) {")
    code.run(f"    double value = {values.name}[i] * {scale}[i] + {offset}[i];")
    code.run(f"    output[i] = (real){inverse};")
    code.run("}")
    return functions


def output_count(signature: Signature) -> int:
    """Return the number of values that `predict` writes."""
    output = signature.output
    return len(output.names) if isinstance(output, RegressionOutput) else len(output.labels)
