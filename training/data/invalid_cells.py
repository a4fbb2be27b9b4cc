"""The cells of a column that are not what is expected: one fault that counts them and shows a few."""

from __future__ import annotations

from typing import Any

from model_store.errors import Fault
from model_store.utils.values import describe_value

FINITE_NUMBER = "a finite number"
_MAX_EXAMPLES = 4
_MAX_EXAMINED = 1000  # cells of which the examples are chosen


class InvalidCells:
    """Counts cells, and keeps the first ones that differ from one another as examples."""

    def __init__(self) -> None:
        self.count = 0
        self._examples: dict[str, str] = {}  # the location of each

    def add(self, cell: Any, location: str) -> None:
        self.count += 1
        if len(self._examples) < _MAX_EXAMPLES and self.count <= _MAX_EXAMINED:
            self._examples.setdefault(describe_value(cell), location)

    def fault(self, column: str, expected: str, fix: str = "") -> Fault:
        """Return the fault of at least one such cell."""
        (first, location), *others = self._examples.items()
        problem = f"expected {expected}, found {first}"
        if self.count > 1:
            shown = ", ".join(f"{cell} in {place}" for cell, place in others)
            problem += f"; {self.count} cells are like this" + (f", also {shown}" if shown else "")
        them = "the cell, or empty it if the value is" if self.count == 1 else "these cells, or empty them if they are"
        return Fault(f"{location}, column {column}", problem, fix or f"correct {them} missing")
