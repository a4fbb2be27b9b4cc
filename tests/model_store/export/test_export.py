"""`models export`: what is checked before files are written, and how they are written."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from model_store.artifact.model import Golden
from model_store.cli.main import main
from model_store.export import base
from model_store.export import export as export_module
from model_store.export.agreement import find_disagreement
from model_store.export.base import ExportError, ExportSource, check_carried, codes_by_text, golden_rows, unknown_code
from model_store.export.c import compiler
from model_store.export.export import TARGETS, export, find_target, write_files
from model_store.nn import LAYERS, Array
from model_store.registry.store import open_store
from model_store.schema.columns import KINDS, CategoryColumn
from model_store.schema.signature import ClassificationOutput
from tests.model_store.export.example_models import example_model


@dataclass
class FakeTarget:
    """A target that answers as the model does, with one value changed by `off`."""

    off: float = 0.0
    layers: frozenset[str] = frozenset(LAYERS)
    columns: frozenset[str] = frozenset(KINDS)
    name: str = "fake"

    def check_engine(self, source: ExportSource) -> None:
        pass

    def files(self, source: ExportSource) -> dict[str, bytes]:
        return {f"{source.stem}.a": b"a" * 10, f"{source.stem}.b": b"b" * 2048}

    def answer(self, source: ExportSource, files: Mapping[str, bytes], rows: Sequence[Any]) -> Mapping[str, Array]:
        assert len(files) == 2
        model = source.model
        found = model.signature.decode_arrays(model.network(model.encode(rows)))
        found["probabilities"] = found["probabilities"].copy()
        found["probabilities"][1, 0] += self.off
        return found

    def notes(self, source: ExportSource, files: Mapping[str, bytes]) -> list[str]:
        return [f"{len(files)} files of {source.reference}."]


def source(name: str = "numbers") -> ExportSource:
    return ExportSource("m", 7, "ab" * 32, example_model(name))


def test_an_export_that_disagrees_with_a_golden_row_is_refused() -> None:
    assert export(source(), FakeTarget(1e-7)).keys() == {"m-7.a", "m-7.b"}
    with pytest.raises(
        ExportError, match=r"m/7: fake gives .* golden row 1: expected probabilities 0\.\d+, found 0\.\d+"
    ):
        export(source(), FakeTarget(1e-3))


def test_a_model_without_golden_rows_is_checked_on_made_up_ones() -> None:
    without = replace(source(), model=replace(example_model("numbers"), golden=None))
    assert export(without, FakeTarget())
    with pytest.raises(ExportError, match="golden row 1"):
        export(without, FakeTarget(1e-3))


def test_layers_and_columns_that_the_target_cannot_carry_are_named() -> None:
    few = FakeTarget(layers=frozenset({"Linear", "Average", "Softmax", "SmoothClip", "FeatureScale"}))
    with pytest.raises(ExportError) as caught:
        check_carried(source("ensemble"), few)
    assert "modules.0.members.2.modules.1 (PeriodicEmbedding): fake cannot carry this type of layer" in str(
        caught.value
    )
    with pytest.raises(ExportError, match=r"column title \(text\): onnx cannot carry this kind of column"):
        export(source("texts"), find_target("onnx"))
    with pytest.raises(ExportError, match=r"modules\.0 \(Average\)"):
        check_carried(source("ensemble"), FakeTarget(layers=frozenset(LAYERS) - {"Average"}))


def test_the_codes_of_texts_are_those_of_the_column() -> None:
    port = CategoryColumn("port", ("a", "NA"), "bucket", "a")
    assert codes_by_text(port).items() >= {"a": 0, "NA": 1, "na": 0, "Na": 0, "": 0, "NULL": 0}.items()
    assert unknown_code(port) == 2
    strict = CategoryColumn("flag", ("yes", "no"))
    assert codes_by_text(strict).items() >= {"YES": 0, "False": 1, "": -1, "n/a": -1}.items()
    assert unknown_code(strict) == -1


def test_files_are_written_all_or_none(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "missing" / "two"
    with pytest.raises(FileNotFoundError):
        write_files({one: b"1", two: b"2"})
    assert list(tmp_path.iterdir()) == []
    other = tmp_path / "other"
    other.write_bytes(b"mine")
    with pytest.raises(ExportError, match=r"other: already exists; overwrite it with --force"):
        write_files({one: b"1", other: b"2"})
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    write_files({one: b"1", other: b"2"}, force=True)
    assert (one.read_bytes(), other.read_bytes()) == (b"1", b"2")


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_the_golden_rows_of_an_export_cost_as_much_as_those_of_training(target: str) -> None:
    """A file of 74 kB had 6,000 golden rows, whose answers repeat labels of 12,000 characters: 216 MB."""
    labels = ClassificationOutput("y", tuple(letter * 12_000 for letter in "abc"))
    model = example_model("numbers")
    model = replace(model, signature=replace(model.signature, output=labels))
    assert model.golden is not None
    rows, outputs = [model.golden.instances[0]] * 6000, np.repeat(model.golden.outputs[:1], 6000, axis=0)
    hostile = replace(source(), model=replace(model, golden=Golden(rows, outputs)))
    assert len(golden_rows(hostile.model).instances) == 8
    files = find_target(target).files(hostile)
    assert sum(map(len, files.values())) < 1_000_000


def test_the_golden_rows_of_an_export_are_bounded_by_answers_and_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    model = example_model("numbers")
    assert model.golden is not None
    assert golden_rows(model).instances == model.golden.instances
    monkeypatch.setattr(base, "_MAX_ANSWER_VALUES", 7)  # of three labels
    assert golden_rows(model).instances == model.golden.instances[:2]
    monkeypatch.setattr(base, "_MAX_OPERATIONS", 1)
    assert golden_rows(model).instances == model.golden.instances[:1]


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_no_rows_of_millions_of_values_are_made_up(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 2.4 kB took 18 s and 1 GB, since it described images of 4096 x 4096."""
    images = example_model("images")
    assert golden_rows(replace(images, golden=None)).instances
    monkeypatch.setattr(base, "_MAX_MADE_UP_VALUES", 100)
    monkeypatch.setattr(base, "make_up_rows", lambda *_: pytest.fail("rows were made up"))
    with pytest.raises(ExportError, match=r"no row of 144 values is made up .*: 100 at most; publish it with"):
        export(replace(source(), model=replace(images, golden=None)), find_target(target))


def test_a_missing_engine_is_an_error_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "quickjs", None)
    monkeypatch.setattr(compiler, "_COMPILERS", ())
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "model_store.export.onnx.runtime", raising=False)
    for name, problem in {"javascript": "QuickJS", "c": "C compiler", "onnx": "needs onnx"}.items():
        target = find_target(name)
        monkeypatch.setattr(type(target), "files", lambda *_: pytest.fail("files were made"))
        with pytest.raises(ExportError, match=problem):
            export(source(), target)


# The command ----------------------------------------------------------------------------------------------------------


@pytest.fixture(name="folder")
def folder_with_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    open_store("models").publish("penguins", example_model("penguins"))
    return tmp_path


def run(*words: str, code: int = 0) -> Result:
    found = CliRunner().invoke(main, ["export", *words])
    assert found.exit_code == code, found.output
    return found


def test_the_command_writes_a_file_and_says_its_size_inputs_and_outputs(folder: Path) -> None:
    found = run("penguins/1", "--to", "onnx")
    assert found.stderr.startswith("Wrote penguins-1.onnx, ")
    assert "Inputs: island string[batch, 1], bill_length_mm double[batch, 1]," in found.stderr
    assert "Outputs: label string[batch], probabilities float[batch, 3]." in found.stderr
    run("penguins", "--to", "onnx")  # the same bytes
    run("penguins/newest", "--to", "onnx", code=5)
    assert (folder / "penguins-1.onnx").stat().st_size > 1000


def test_another_file_is_overwritten_with_force_only(folder: Path) -> None:
    (folder / "mine").write_text("notes")
    assert "mine: already exists" in run("penguins", "--to", "onnx", "-o", "mine", code=5).stderr
    assert (folder / "mine").read_text() == "notes"
    report = json.loads(run("penguins", "--to", "onnx", "-o", "mine", "--force", "--json").stdout)
    assert report["files"] == [{"path": "mine", "bytes": (folder / "mine").stat().st_size}]
    assert (report["name"], report["version"], report["target"]) == ("penguins", 1, "onnx")


def test_a_folder_gets_the_files_with_their_own_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("penguins", "--to", "onnx", "--output", "out/")
    assert [path.name for path in (folder / "out").iterdir()] == ["penguins-1.onnx"]
    monkeypatch.setitem(TARGETS, "onnx", "tests.fake")
    monkeypatch.setattr(export_module, "import_module", lambda _: type("Module", (), {"TARGET": FakeTarget()}))
    found = run("penguins", "--to", "onnx")
    assert found.stderr == (
        "Wrote penguins-1-onnx/penguins-1.a, 10 bytes.\nWrote penguins-1-onnx/penguins-1.b, 2.0 KiB.\n"
        "2 files of penguins/1.\n"
    )


def test_a_missing_package_is_named_with_its_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("model_store.export.onnx.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "onnx", None)
    found = run("penguins", "--to", "onnx", code=5)
    assert "the target onnx needs onnx; install it with: pip install 'onnx>=" in found.stderr
    assert [path.name for path in folder.iterdir()] == ["models"]


def test_statistics_that_do_not_describe_the_columns_are_an_error_of_the_export() -> None:
    model = example_model("refused category")
    town, age = model.signature.inputs
    age = replace(age, statistics={"deciles": [1e290, 1e290]})
    hostile = replace(model, signature=replace(model.signature, inputs=(town, age)), golden=None)
    with pytest.raises(ExportError, match="rejects rows made up from its statistics"):
        export(replace(source(), model=hostile), FakeTarget())


def test_infinite_predictions_agree() -> None:
    model = example_model("log")
    outputs = np.array([[1e4]], np.float32)
    assert find_disagreement(model.signature, outputs, {"values": np.array([[np.inf]])}) is None
    assert find_disagreement(model.signature, outputs, {"values": np.array([[np.nan]])}) == (0, "values inf", "nan")


def test_the_table_of_the_page_says_what_each_target_carries() -> None:
    page = (Path(__file__).parents[3] / "docs" / "exports.md").read_text(encoding="utf-8")
    lines = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]
    names = lines[0][1:]
    assert names == sorted(TARGETS)
    rows = {line[0].partition(":")[0].partition(",")[0]: line[1:] for line in lines}
    for i, name in enumerate(names):
        target = find_target(name)
        for kind, row in {
            "number": "numbers",
            "date": "dates",
            "category": "categories",
            "text": "texts",
            "array": "arrays",
        }.items():
            assert rows[row][i].startswith("yes") == (kind in target.columns), (name, kind)
        assert (rows["all layers"][i] == "yes") == (target.layers >= set(LAYERS))
