"""`models predict` answers for each file of images and folders of them, with its name."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from model_store.artifact.model import Model
from model_store.cli.main import main
from model_store.nn import Linear, Sequential
from model_store.registry.store import open_store
from model_store.schema.columns import ArrayColumn, NumberColumn
from model_store.schema.outputs import RegressionOutput
from model_store.schema.signature import Signature
from tests.image_files import image_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that returns the mean of a grey image of 2 by 2 pixels, and images of one colour each."""
    column = ArrayColumn("image", (2, 2), low=0.0, high=255.0, image_crop="center")
    layer = Linear(4, 1, dtype=np.float64)
    layer.weights, layer.bias = np.full((1, 4), 0.25), [0.0]
    network = Sequential([layer])
    store = open_store(tmp_path / "models")
    store.publish("grey", Model(network, Signature((column,), RegressionOutput(("y",), (0.0,), (1.0,)))))
    number = Sequential([Linear(1, 1, dtype=np.float64)])
    store.publish("line", Model(number, Signature((NumberColumn("x"),), RegressionOutput(("y",), (0.0,), (1.0,)))))
    for name, grey in (("b/10.png", 10), ("b/2.png", 2), ("a/200.PNG", 200), ("a/.hidden.png", 0), ("7.png", 7)):
        file = tmp_path / "in" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image_file(np.full((2, 2), grey, np.uint8), "PNG"))
    (tmp_path / "in" / "a" / "notes.txt").write_text("no image")
    return tmp_path


def predict(folder: Path, *arguments: str, model: str = "grey") -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return CliRunner().invoke(main, ["predict", model, *arguments, "--store", "models"])


def test_a_folder_has_an_answer_for_each_file_by_its_name(folder: Path) -> None:
    found = json.loads(predict(folder, "in", "--json").stdout)
    assert dict(zip(found["files"], found["predictions"], strict=True)) == {
        "in/7.png": 7, "in/a/200.PNG": 200, "in/b/10.png": 10, "in/b/2.png": 2
    }  # fmt: skip
    assert (found["model"], found["version"]) == ("grey", 1)


def test_files_and_folders_are_answered_in_the_order_of_the_command(folder: Path) -> None:
    lines = predict(folder, "in/b/2.png", "in/a/", "in/7.png").stdout.splitlines()
    assert [line.split() for line in lines if line] == [
        ["file", "prediction"], ["in/b/2.png", "2"], ["in/a/200.PNG", "200"], ["in/7.png", "7"]
    ]  # fmt: skip


def test_the_output_is_csv_with_a_column_of_files(folder: Path) -> None:
    found = predict(folder, "in", "--output", "out.csv")
    assert "Wrote the predictions of grey/1 for 4 files to out.csv." in found.stderr
    rows = list(csv.reader((folder / "out.csv").read_text().splitlines()))
    assert rows[:2] == [["file", "y"], ["in/7.png", "7.0"]]
    assert len(rows) == 5
    assert predict(folder, "in/7.png", "--output", "-").stdout == "file,y\nin/7.png,7.0\n"


def test_a_file_in_a_batch_of_its_own_has_its_own_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_store.cli.predict.images._BATCH_FILES", 1)
    assert json.loads(predict(folder, "in", "--json").stdout)["predictions"] == [7, 200, 10, 2]


@pytest.mark.parametrize("content", [b"GIF89a", b"", b"\x89PNG\r\n\x1a\n"])
def test_an_invalid_file_is_named_and_nothing_is_written(folder: Path, content: bytes) -> None:
    (folder / "in" / "c.png").write_bytes(content)
    found = predict(folder, "in", "--output", "out.csv")
    assert found.exit_code == 3
    assert "in/c.png: expected a" in found.stderr
    assert not (folder / "out.csv").exists()


def test_a_file_that_cannot_be_decoded_is_named(folder: Path) -> None:
    """Its structure is right, its pixels are not: the model's error has the row of a batch."""
    content = bytearray((folder / "in" / "b" / "10.png").read_bytes())
    content[content.index(b"IDAT") + 6] ^= 0xFF
    (folder / "in" / "b" / "10.png").write_bytes(content)
    found = predict(folder, "in")
    assert found.exit_code == 3
    assert "in/b/10.png" in found.stderr


def messages() -> list[tuple[list[str], int, str, str]]:
    return [
        (["models"], 3, "grey", "models: expected a folder with files .png, .jpg, .jpeg, found none"),
        (["in"], 3, "line", "in/7.png: expected a table, of which line/1 takes rows; found an image"),
        (["in", "--header", "present"], 2, "grey", "--header, --keep and the options of a table need a table"),
        (["in/7.png", "in/a/notes.txt"], 2, "grey", "Several tables need a folder as --output"),
        (["in/7.png", "--output", "in/7.png"], 2, "grey", "--output would replace FILE"),
        (["missing.png"], 2, "grey", "does not exist"),
    ]


@pytest.mark.parametrize(("arguments", "code", "model", "message"), messages())
def test_what_cannot_be_answered_is_an_error(
    folder: Path, arguments: list[str], code: int, model: str, message: str
) -> None:
    found = predict(folder, *arguments, model=model)
    assert found.exit_code == code
    assert message in " ".join(found.stderr.replace("│", " ").split())
