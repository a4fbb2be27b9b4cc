"""Jobs on small tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from training.errors import DataError, JobError
from training.pipeline.job import Job, from_dict, prepare


def job(folder: Path, table: str, **sections: dict[str, Any]) -> Job:
    """Return a job on `table` with the target y."""
    (folder / "t.csv").write_text(table, encoding="utf-8")
    content: dict[str, Any] = {"model": {"name": "m"}, "data": {"path": "t.csv", "target": "y"}}
    for name, keys in sections.items():
        content[name] = {**content.get(name, {}), **keys}
    content.setdefault("train", {}).setdefault("epochs", 2)
    return from_dict(content, folder)


def refusal(folder: Path, table: str, **sections: dict[str, Any]) -> str:
    with pytest.raises((DataError, JobError)) as caught:
        prepare(job(folder, table, **sections))
    return str(caught.value)


def rows(count: int, line: str = "{i},{c}") -> str:
    """Return a table of x and y: `line` with the row number i, and c, which is a or b."""
    return "x,y\n" + "".join(line.format(i=i, c="ab"[i % 2]) + "\n" for i in range(count))
