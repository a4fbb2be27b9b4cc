"""`train init`: a first job file for a table, commented, with guessed kinds and a network of sensible size."""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from model_store.errors import Fault, did_you_mean
from model_store.schema.columns import number_in
from model_store.utils.atomic_write import replacing
from model_store.utils.number_format import format_number
from training.config.schema import NAME_PATTERN, TABLE_SUFFIXES
from training.config.settings import DataSection
from training.data import readers, type_inference
from training.data.readers import Table
from training.data.splitting import share
from training.data.streaming import table_reader
from training.data.streaming.dataset import streams
from training.errors import DataError, JobError
from training.pipeline.job import from_dict, prepare

_STEPS = 4000  # about as many as a small table takes to be learned


def draft(path: Path, target: str | None, job: Path, name: str | None = None) -> str:
    """The text of a job file to lie at `job`, for the table at `path`."""
    kind = path.suffix.lower()
    if kind not in TABLE_SUFFIXES and path.is_file():
        fix = "start from examples/digits.toml" if kind == ".npz" else "docs/jobs.md shows a whole job file"
        raise DataError(path.name, [Fault("", f"expected a .csv or .parquet file; found {kind or 'no ending'}", fix)])
    streamed = streams(DataSection(path=path.name), path.parent)
    table = table_reader.first_rows(path) if streamed else readers.read_csv(path)
    if len(table) == 1:
        raise DataError(path.name, [Fault("", "there is one row of data", "add rows: a model learns from many")])
    if target is None:
        fix = f"--target COLUMN, one of {', '.join(table.columns)}"
        raise JobError(path.name, [Fault("", "expected the column to predict", fix)])
    if target not in table.columns:
        fix = did_you_mean(target, table.columns) or f"the columns are {', '.join(table.columns)}"
        raise DataError(path.name, [Fault("--target", f"there is no column '{target}'", fix)])
    model = name or _name(job.stem)
    if not NAME_PATTERN.fullmatch(model):
        raise JobError("--name", [Fault("", f"expected letters, digits, '.', '_' and '-'; found {model!r}")])
    text = _text(table, target, model, os.path.relpath(path, job.parent), streamed=streamed)
    prepare(from_dict(tomllib.loads(text), job.parent, path.name))  # what it finds wrong with the data is wrong now
    return text


def write(path: Path, text: str, *, force: bool = False) -> None:
    """Write the job file, whole or not at all; one that is there stays, unless `force`."""
    if path.suffix != ".toml":
        raise JobError(str(path), [Fault("", "expected the name of a job file, ending in .toml")])
    if path.exists() and not force:
        raise JobError(str(path), [Fault("", "is there already", "--force replaces it, -o writes another")])
    try:
        with replacing(path, "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        fault = Fault("", f"cannot be written: {error.strerror}", "-o writes it elsewhere")
        raise JobError(str(path), [fault]) from error


def _text(table: Table, target: str, model: str, path: str, *, streamed: bool) -> str:
    """The job file, as the table has it; of one that is `streamed` there are the first rows alone."""
    cells = [cell for cell in table.columns[target] if cell is not None]
    if not cells:
        raise DataError(table.name, [Fault(f"column {target}", "the target is missing in every row", "choose another")])
    classes = type_inference.task_of(table, [target]) == "classification"
    inputs = {name: values for name, values in table.columns.items() if name != target}
    used = [name for name, values in inputs.items() if not _useless(values)]
    if not used:
        raise DataError(table.name, [Fault("", f"no column is left to predict {target} from", "add columns")])
    batch = max(1, min(32, len(cells) // 8))
    test, validation = (0.2, 0.1) if streamed else _shares(cells, classes)
    return _TEMPLATE.format(
        model=_quoted(model),
        description=_quoted(f"{target} from {Path(path).name}"),
        path=_quoted(path),
        target=_quoted(target),
        task="classification" if classes else "regression",
        found=f"{len(set(cells))} different values in {'the first ' if streamed else ''}{len(cells)} rows",
        looks="\n".join(f"#   {_printable(name)}: {_look(values)}" for name, values in inputs.items()),
        columns=", ".join(map(_quoted, used)),
        test=test,
        validation=validation,
        size=max(8, min(64, 1 << (4 * len(used) - 1).bit_length())),
        loss="cross_entropy" if classes else "mse",
        clip="" if classes else _CLIP,
        epochs=round(max(20, min(500, _STEPS * batch // len(cells))), -1),
        batch=batch,
    )


_TEMPLATE = """\
# A training job. `train check` shows what it would do, `train` does it; docs/jobs.md explains every key.

[model]
name = {model}
description = {description}

[data]
path = {path}
target = {target}
task = "{task}"  # the target has {found}
# The other columns, as they look:
{looks}
columns = [{columns}]
# kinds = {{ year = "category" }}  # where a kind is guessed wrong: "number" or "category"
missing = "impute"   # the median of a number, the most frequent category; or "refuse"
unknown = "refuse"   # categories that training did not see; or "bucket", to take them as one
scale = "standard"   # numbers to mean 0 and deviation 1; or "none"

[split]
test = {test}           # held out to judge the model
validation = {validation}     # tells when to stop

[network]
layers = [{size}, "relu"]  # hidden sizes and relu, leaky_relu, gelu, tanh, sigmoid or identity

[train]
loss = "{loss}"
optimizer = "sgd"    # or "adam", "adamw", "rmsprop"
learning_rate = 0.01  # train --find-rate suggests one
{clip}# schedule = "cosine"  # how the learning rate changes; or "one_cycle", "step", "plateau"
epochs = {epochs}
batch_size = {batch}
seed = 0             # the same seed gives the same model, bit for bit
early_stopping = {{ patience = 20 }}  # epochs to wait for a better one; the best weights are kept

# [publish]
# alias = "champion"  # moves to each new version
"""


# Of 120 small tables, half of them skewed, 4 diverged without it and none with it.
_CLIP = "clip_norm = 1.0      # longer gradients are cut to this, so that a few extreme rows throw no weights far\n"


def _quoted(text: str) -> str:
    """A TOML basic string."""
    return '"' + re.sub(r'[\x00-\x1f"\\\x7f]', lambda found: f"\\u{ord(found[0]):04x}", text) + '"'


def _printable(text: str) -> str:
    """Fit for a comment of one line."""
    return "".join(character if character.isprintable() else " " for character in text)


def _useless(cells: Sequence[str | None]) -> bool:
    present = {cell for cell in cells if cell is not None}
    return len(present) < 2 or (type_inference.infer_kind(cells) == "category" and type_inference.identifies(cells))


def _look(cells: Sequence[str | None]) -> str:
    present = [cell for cell in cells if cell is not None]
    distinct = len(set(present))
    if distinct < 2:
        return "left out, it never changes" if present else "left out, it is empty"
    if type_inference.infer_kind(cells) == "number":
        found = [float(cell) for cell in present]
        look = f"number, {format_number(min(found), 6)} to {format_number(max(found), 6)}"
        remark = _doubt(present, found)
    elif type_inference.identifies(cells):
        return f"left out, {distinct} different texts are no categories{_kind_to_be(present)}"
    else:
        look, remark = f"category, {distinct} different texts", _kind_to_be(present)
    if len(present) < len(cells):
        look += f", {len(cells) - len(present)} missing"
    return look + remark


_CODE = re.compile(r"0\d+")


def _kind_to_be(present: Sequence[str]) -> str:
    """What texts could be instead, if somebody wrote them otherwise."""
    odd = [cell for cell in present if number_in(cell) is None]
    if 10 * len(odd) <= len(present):
        return (
            f"; numbers but for {len(odd)}, such as {_printable(odd[0][:40])!r}: empty those cells if they are missing"
        )
    meant = type_inference.kind_meant(present)
    return f"; {meant}" if meant else ""


def _doubt(present: Sequence[str], found: Sequence[float]) -> str:
    """Why numbers may be none."""
    code = next((cell for cell in present if _CODE.fullmatch(cell)), None)
    if code is not None:
        return f"; a code, as {code} begins with 0? Then it is a category"
    if all(map(float.is_integer, found)) and len(set(found)) == len(found) == max(found) - min(found) + 1 >= 20:
        return "; the number of the row? Then leave it out"
    return ""


def _shares(cells: Sequence[str], classes: bool) -> tuple[float, float]:
    """The usual shares, or none of a table too small to give any rows away."""
    groups = list(Counter(cells).values()) if classes else [len(cells)]
    enough = len(cells) >= 20 and sum(share(0.1, rows) for rows in groups) > 0
    return (0.2, 0.1) if enough else (0.0, 0.0)


def _name(stem: str) -> str:
    """The file's name as a model's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:100] or "model"
