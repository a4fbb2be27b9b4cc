"""Errors of the commands: JSON with --json, and the user's fault if a path cannot be used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from model_store.cli.main import main as models
from service.cli import main as serve
from training.cli.main import main as train

COMMANDS = {"train": train, "models": models, "serve": serve}
TABLE = "a,b,kind\n" + "".join(f"{i},{i % 7},{'odd' if i % 2 else 'even'}\n" for i in range(40))
JOB = '[model]\nname = "numbers"\n[data]\npath = "numbers.csv"\ntarget = "kind"\n[train]\nepochs = 1\n'


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("numbers")
    (folder / "numbers.csv").write_text(TABLE)
    (folder / "numbers.toml").write_text(JOB)
    result = CliRunner().invoke(train, [str(folder / "numbers.toml"), "--store", str(folder / "store"), "-q"])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs a command line in a copy of the folder of a trained model."""
    folder = tmp_path / "work"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)

    def invoke(line: str) -> Any:
        command, *arguments = line.split()
        environ = {"MODEL_STORE": str(folder / "store"), "SERVE_KEYS_FILE": None}
        return CliRunner().invoke(COMMANDS[command], arguments, env=environ)

    return invoke


def each_command() -> list[tuple[str, click.Command]]:
    """Return every command that has --json, with its words."""

    def walk(words: str, command: click.Command) -> list[tuple[str, click.Command]]:
        if isinstance(command, click.Group):
            return [found for name, inner in command.commands.items() for found in walk(f"{words} {name}", inner)]
        return [(words, command)] if any("--json" in option.opts for option in command.params) else []

    return [found for name, command in COMMANDS.items() for found in walk(name, command)]


@pytest.mark.parametrize("words", [words for words, _ in each_command()])
def test_a_usage_error_of_every_command_is_json(run: Any, words: str) -> None:
    found = run(f"{words} --json --no-such-option")
    error = json.loads(found.stdout)["error"]
    assert found.exit_code == error["exit_code"] == 2
    assert "--no-such-option" in error["message"]
    assert "--no-such-option" in found.stderr


@pytest.mark.parametrize(
    "line",
    [
        "train nothing.toml",
        "train check nothing.toml",
        "train init nothing.csv --target kind",
        "models show nothing",
        "models predict nothing numbers.csv",
        "models predict numbers nothing.csv",
        "models predict numbers --row {",
        "models promote numbers 7",
        "models nothing",
    ],
)
def test_errors_are_one_json_document_on_standard_output(run: Any, line: str) -> None:
    found = run(f"{line} --json")
    error = json.loads(found.stdout)["error"]
    assert found.exit_code == error["exit_code"] > 1
    assert error["message"]
    assert found.stderr


UNUSABLE = {
    "a missing directory": "no/such/file",
    "a directory": "folder",
    "a file as a directory": "numbers.csv/file",
    "a link to itself": "loop",
    "a name that is too long": "x" * 300,
    "a full device": "/dev/full",
}


@pytest.mark.parametrize("path", list(UNUSABLE.values()), ids=list(UNUSABLE))
@pytest.mark.parametrize(
    "line",
    [
        "models predict numbers numbers.csv --output PATH",
        "models report numbers -o PATH",
        "models export numbers --to onnx --output PATH",
        "models keygen PATH",
        "models sign numbers --key PATH",
        "models verify numbers --key PATH",
        "models replay PATH numbers.csv",
        "models replay receipt.json PATH",
        "models predict numbers PATH",
        "train init numbers.csv --target kind --force -o PATH/x.toml",
        "train init PATH.csv --target kind",
        "train PATH",
        "train check PATH",
        "train numbers.toml --set data.path=PATH.csv",
        "train numbers.toml --no-publish --checkpoint PATH/below",
        "serve keygen ada --file PATH",
    ],
)
def test_a_path_that_cannot_be_used_is_the_users_error(run: Any, line: str, path: str) -> None:
    Path("folder").mkdir()
    Path("loop").symlink_to("loop")
    Path("receipt.json").write_text("{}")
    if path == "/dev/full" and not ("--output" in line or "report" in line):
        pytest.skip("only output is written to a device")
    if path == "folder" and ("PATH/" in line or "--output" in line):
        pytest.skip("a directory can be used")
    if path == "no/such/file" and "--checkpoint" in line:
        pytest.skip("the directory is created")
    found = run(line.replace("PATH", path))
    assert found.exit_code in {2, 3, 5}, found.output
    assert "bug" not in found.stderr
    assert "Traceback" not in found.stderr
    assert path in found.stderr or Path(path).name in found.stderr
    assert not list(Path().rglob(".tmp-*"))
