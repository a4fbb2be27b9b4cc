"""The split of a job: which rows are trained on, watched by early stopping and tested, as `[split]` says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from training.config.settings import SplitSection
from training.data.column_splitting import parse_times, split_by_group, split_by_time
from training.data.dataset import Dataset
from training.data.multi_label import stratum_of_rows
from training.data.splitting import Fold, Split, check_stratified, quantile_classes, split


def split_rows(
    rows: Dataset, section: SplitSection, rng: np.random.Generator, fold: Fold | None = None
) -> tuple[Split, list[str]]:
    """Return the split of a dataset in memory, and notes on it. The rows of a test file are the test rows."""
    in_file = np.arange(len(rows) - (rows.test_file.rows if rows.test_file else 0))
    notes: list[str] = []
    if section.by is None:
        parts = split(
            _classes(rows, section)[in_file], rows.classes, section.test, section.validation, rng, rows.name, fold
        )
    else:
        cells = rows.extra[str(section.column)]
        file_cells = [cells[row] for row in in_file]
        if section.by == "group":
            classes = rows.targets[in_file] if rows.classes else None
            parts = split_by_group(file_cells, classes, section.test, section.validation, rng, rows.name, fold)
            notes.append(_describe_groups(parts, cells, str(section.column)))
        else:
            locations = [rows.location(int(row)) for row in in_file]
            times = parse_times(file_cells, locations, rows.name, str(section.column))
            parts = split_by_time(times, section.test, section.validation, rows.name, fold)
            notes.append(_describe_times(parts, cells, times, str(section.column)))
    if section.calibration:
        parts = _hold_out_calibration(rows, parts, section, section.calibration * len(in_file), rng)
    if rows.test_file is not None:
        parts = replace(parts, test=np.arange(len(in_file), len(rows)))
        notes.append(f"test rows: {rows.test_file.rows} of {rows.test_file.name}")
    return parts, notes


def split_part(
    rows: Dataset, part: NDArray[np.int64], section: SplitSection, rng: np.random.Generator, fold: Fold
) -> Split:
    """Divide the rows of one part: those of the fold are its test rows, the others its training rows.

    Groups stay together, as in `split_rows`.
    """
    if section.by == "group":
        cells = rows.extra[str(section.column)]
        classes = rows.targets[part] if rows.classes else None
        parts = split_by_group([cells[row] for row in part], classes, 0, 0, rng, rows.name, fold)
    else:
        parts = split(_classes(rows, section)[part], rows.classes, 0, 0, rng, rows.name, fold)
    return Split(part[parts.training], part[parts.validation], part[parts.test])


def _hold_out_calibration(
    rows: Dataset, parts: Split, section: SplitSection, count: float, rng: np.random.Generator
) -> Split:
    """Return the split with about `count` of the training rows as calibration rows, drawn as test rows are.

    Groups stay together; of times, the calibration rows are the latest.
    """
    part, share = parts.training, count / len(parts.training)
    if section.by == "group":
        cells = rows.extra[str(section.column)]
        classes = rows.targets[part] if rows.classes else None
        found = split_by_group([cells[row] for row in part], classes, share, 0, rng, rows.name, None)
    elif section.by == "time":
        cells = [rows.extra[str(section.column)][row] for row in part]
        times = parse_times(cells, [rows.location(int(row)) for row in part], rows.name, str(section.column))
        found = split_by_time(times, share, 0, rows.name, None)
    else:
        found = split(_classes(rows, section)[part], rows.classes, share, 0, rng, rows.name)
    return replace(parts, training=part[found.training], calibration=part[found.test])


def _classes(rows: Dataset, section: SplitSection) -> NDArray[np.int64]:
    """Return the classes by which rows are stratified, or (n, 1) targets if they are not.

    Of several labels, a row counts for its rarest one.
    """
    check_stratified(section, rows.task, rows.name)
    if rows.task == "multi_label":
        return rows.targets if section.stratify is False else stratum_of_rows(rows.targets)
    if rows.labels:
        return rows.targets
    return quantile_classes(rows.targets[:, 0]) if section.stratify else rows.targets


def _describe_groups(parts: Split, cells: list[str | None], column: str) -> str:
    """Return a note on the groups of each part."""
    shown = [f"{len({cells[row] for row in rows})} {name}" for name, rows in _named_parts(parts)]
    return f"split by {column}: {', '.join(shown)} groups"


def _describe_times(parts: Split, cells: list[str | None], times: NDArray[np.float64], column: str) -> str:
    """Return a note on the times of each part."""
    shown = []
    for name, rows in _named_parts(parts):
        first, last = (cells[rows[at]] for at in (times[rows].argmin(), times[rows].argmax()))
        shown.append(f"{name} {first}" if first == last else f"{name} {first} to {last}")
    return f"split by {column}: {', '.join(shown)}"


def _named_parts(parts: Split) -> list[tuple[str, NDArray[np.int64]]]:
    """Return the parts that have rows, by name."""
    every = (
        ("training", parts.training),
        ("calibration", parts.calibration),
        ("validation", parts.validation),
        ("test", parts.test),
    )
    return [(name, rows) for name, rows in every if len(rows)]
