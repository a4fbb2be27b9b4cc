"""A table with columns of all kinds and missing values, as DataFrames have them."""

from __future__ import annotations

import numpy as np
import pandas as pd


def people(rows: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "city": rng.choice(["Rome", "Oslo", "Lima"], rows),
            "mass": rng.normal(70, 10, rows),
            "sex": pd.Categorical(rng.choice(["f", "m"], rows)),
            "member": rng.random(rows) > 0.5,
            "children": pd.array(rng.integers(0, 5, rows), dtype="Int64"),
            "since": pd.date_range("2020-01-01", periods=rows, freq="D"),
            "price": [f"${price},000" for price in rng.integers(10, 99, rows)],
        }
    )
    table.loc[[5, 9, 40], "mass"] = np.nan
    table.loc[3, "city"] = None
    table.loc[7, "children"] = pd.NA
    table.loc[9, "since"] = pd.NaT
    table.loc[11, "sex"] = np.nan
    return table


def answers(table: pd.DataFrame) -> pd.Series:
    return pd.Series(np.where((table["city"] == "Rome") | (table["mass"] > 75), "yes", "no"), name="answer")


def amounts(table: pd.DataFrame) -> pd.Series:
    return pd.Series(table["mass"].fillna(70.0) / 10 + (table["city"] == "Oslo"), name="amount")
