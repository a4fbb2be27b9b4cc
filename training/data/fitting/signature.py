"""The signature of a model from the statistics of its columns and targets."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from model_store.errors import Fault
from model_store.schema.columns import Column
from model_store.schema.signature import ClassificationOutput, MultiLabelOutput, RegressionOutput, Signature
from training.config.settings import DataSection
from training.data.fitting.kinds import COLUMN_KINDS
from training.data.fitting.statistics import NumericSummary
from training.errors import DataError


def fit_signature(
    source: str,
    columns: Iterable[tuple[str, str, Any]],
    output: ClassificationOutput | MultiLabelOutput | Mapping[str, NumericSummary],
    section: DataSection,
    incomplete: Collection[str],
    formats: Mapping[str, Any],
) -> Signature:
    """Return the signature. `columns` holds the name, kind and statistics of each column, `formats` how
    texts spell its values.

    `output` is that of a classifier, or for a regression a summary of each target. Only columns that are
    `incomplete` or optional in the job get a value to fill in: the others are required. Columns without any value in
    the training rows are left out.

    DataError if no column is left, or a target is constant.
    """
    inputs: list[Column] = []
    faults: list[Fault] = []
    for name, kind, statistics in columns:
        if kind != "number" and name in section.asinh_names:
            fix = "remove it, or write its kind in [data] kinds"
            faults.append(Fault("data.asinh", f"expected columns of numbers, found '{name}', a {kind}", fix))
        required = name not in incomplete and not section.is_optional(name)
        own = replace(section, missing="refuse") if required else section
        try:
            column = COLUMN_KINDS[kind].fit(name, statistics, own)
        except DataError as error:
            faults += error.faults
            continue
        if column is not None:
            written = formats.get(name)
            inputs.append(column if written is None else replace(column, format=written))  # type: ignore[type-var]
    if not inputs and not faults:
        faults.append(Fault("", "no column has a value in the training rows", "add rows, or input columns"))
    summaries = output if isinstance(output, Mapping) else {}
    faults += [constant_target_fault(name, one.minimum) for name, one in summaries.items() if one.is_constant]
    if faults:
        raise DataError(source, faults)
    if not isinstance(output, Mapping):
        return Signature(tuple(inputs), output)
    offsets, scales = zip(*(summary.scaling(section.scale != "none") for summary in summaries.values()), strict=True)
    return Signature(tuple(inputs), RegressionOutput(tuple(summaries), offsets, scales))


def constant_target_fault(name: str, value: float) -> Fault:
    problem = f"expected a target that varies, found {value:g} in every training row"
    return Fault(f"column {name}", problem, "choose another target, or add rows with other values")
