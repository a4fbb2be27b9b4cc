"""The weights of rows: how much each counts in the loss and the metrics."""

from __future__ import annotations

from model_store.errors import Fault
from model_store.utils.values import describe_value, parse_finite_number
from training.data.dataset import Dataset
from training.data.splitting import Split
from training.errors import MAX_SHOWN_FAULTS, DataError


def check_weights(rows: Dataset, parts: Split, column: str) -> None:
    """Raise DataError unless the cells of a column are numbers of at least 0, and not all of a part are 0."""
    faults: list[Fault] = []
    weights = []
    total = 0
    for row, cell in enumerate(rows.extra[column]):
        weight = None if cell is None else parse_finite_number(cell)
        if weight is None or weight < 0:
            total += 1
            if len(faults) < MAX_SHOWN_FAULTS:
                found = "none" if cell is None else describe_value(cell)
                problem = f"expected a weight of at least 0, found {found}"
                faults.append(Fault(f"{rows.location(row)}, column {column}", problem, "write 0 for a row to ignore"))
        weights.append(weight or 0.0)
    if faults:
        raise DataError(rows.name, faults, total)
    for name, part in (("training", parts.training), ("validation", parts.validation), ("test", parts.test)):
        if len(part) and not any(weights[row] for row in part):
            raise DataError(rows.name, [zero_weights_fault(column, name)])


def zero_weights_fault(column: str, part: str) -> Fault:
    fix = "try other weights, or another split"
    return Fault(f"column {column}", f"all {part} rows have a weight of 0", fix)
