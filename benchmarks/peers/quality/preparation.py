"""What users of the peers do to a table before fitting: types, dates, missing values.

Every peer gets the same: a text column of dates becomes day number, month, weekday and, if the time varies, hour; a
text column with more distinct cells than half of its rows is left out, as none of the peers reads text; other text is
a category. Booleans and numbers are numbers. What differs by library is in `contestant.py`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pandas as pd


def read(train: Path, test: Path, target: str, *, classes: bool) -> tuple[Any, Any, Any]:
    """Return training inputs, training targets and test inputs; labels stay the texts of the file."""
    types: Any = {target: str} if classes else None
    known, asked = (pd.read_csv(path, dtype=types, low_memory=False) for path in (train, test))
    y = known.pop(target)
    asked = asked.drop(columns=target)
    for name in list(known.columns):
        if known[name].dtype.kind == "b":
            known[name], asked[name] = known[name].astype(float), asked[name].astype(float)
        elif known[name].dtype.kind not in "iuf":
            _text(known, asked, name)
        elif asked[name].dtype.kind not in "iuf":  # a text among the numbers that training had not
            asked[name] = pd.to_numeric(asked[name], errors="coerce")
    return known, y, asked


def _text(known: Any, asked: Any, name: str) -> None:
    cells, others = known.pop(name), asked.pop(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dates = _dates(cells)
        if dates.notna().sum() >= 0.95 * cells.notna().sum() > 0:
            for frame, moments in ((known, dates), (asked, _dates(others))):
                frame[f"{name} day"] = (moments - pd.Timestamp("1970-01-01")).dt.total_seconds() / 86_400
                frame[f"{name} month"] = moments.dt.month
                frame[f"{name} weekday"] = moments.dt.dayofweek
                if dates.dt.hour.nunique() > 1:
                    frame[f"{name} hour"] = moments.dt.hour
            return
    if cells.nunique() > 0.5 * len(cells):
        return
    values = cells.dropna().astype(str).value_counts()
    kinds = pd.CategoricalDtype(list(values.index))  # the most frequent first
    for frame, texts in ((known, cells), (asked, others)):
        frame[name] = texts.where(texts.isna(), texts.astype(str)).astype(object).astype(kinds)


def _dates(cells: Any) -> Any:
    return pd.to_datetime(cells, errors="coerce", utc=True).dt.tz_localize(None)


def categories(frame: Any) -> list[str]:
    return [name for name in frame.columns if isinstance(frame[name].dtype, pd.CategoricalDtype)]


def with_fewer_categories(known: Any, asked: Any, most: int) -> tuple[Any, Any]:
    """Join all but the `most` frequent categories of a column in one, as scikit-learn's trees take 255."""
    for name in categories(known):
        kept = list(known[name].cat.categories[:most])
        if len(kept) < len(known[name].cat.categories):
            kinds = pd.CategoricalDtype([*kept, "(other)"])
            for frame in (known, asked):
                cells = frame[name].astype(object)
                frame[name] = cells.where(cells.isna() | cells.isin(kept), "(other)").astype(kinds)
    return known, asked


def with_medians(known: Any, asked: Any) -> tuple[Any, Any]:
    """Fill in missing numbers with the median of training, beside a column that says where."""
    for name in [one for one in known.columns if one not in categories(known)]:
        missing = known[name].isna()
        median = known[name].median()
        if missing.any():
            known[f"{name} missing"], asked[f"{name} missing"] = missing * 1.0, asked[name].isna() * 1.0
        for frame in (known, asked):
            frame[name] = frame[name].astype(float).fillna(0.0 if pd.isna(median) else median)
    return known, asked
