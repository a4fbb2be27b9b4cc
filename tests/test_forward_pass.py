"""The command forward-pass has the usage lines, messages and exit codes of train, models and serve."""

import re
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import forward_pass
from model_store.artifact.manifest import PRODUCER
from model_store.cli.common import exit_codes

ROOT = Path(__file__).parent.parent
MODULES = {"train": "training.cli.main", "models": "model_store.cli.main", "serve": "service.cli"}


def run(*words: str) -> Result:
    return CliRunner().invoke(forward_pass.main, words, prog_name="forward-pass")


def test_help_and_version_of_the_installed_command() -> None:
    command = [sys.executable, "-m", "forward_pass"]
    shown = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("Usage: forward-pass [OPTIONS] COMMAND")
    assert re.findall(r"^  (train|models|serve) ", shown.stdout, re.MULTILINE) == ["train", "models", "serve"]
    name, version = PRODUCER.split()
    assert run("--version").output == f"{name}, version {version}\n"


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (["train"], ["forward-pass train FILE [OPTIONS]", "forward-pass train check FILE [OPTIONS]"]),
        (["train", "check"], ["forward-pass train check [OPTIONS] FILE"]),
        (["models"], ["forward-pass models [OPTIONS] COMMAND [ARGS]..."]),
        (["models", "predict"], ["forward-pass models predict [OPTIONS] MODEL [FILE]"]),
        (["serve"], ["forward-pass serve [OPTIONS] [COMMAND] [ARGS]..."]),
        (["serve", "keygen"], ["forward-pass serve keygen [OPTIONS] NAME"]),
    ],
    ids=" ".join,
)
def test_usage_lines_name_the_command_as_typed(words: list[str], usage: list[str]) -> None:
    shown = run(*words, "--help")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert [line for line in usage if line not in shown.stdout] == []
    wrong = run(*words, "--wrong")
    assert wrong.exit_code == 2
    assert f"Try 'forward-pass {' '.join(words)} --help' for help" in wrong.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["train", "missing.toml"],
        ["train", "chek"],
        ["train", "init", "missing.csv"],
        ["models", "show", "penguins", "--store", "nowhere"],
        ["models"],
        ["serve", "--port", "99999"],
    ],
    ids=" ".join,
)
def test_exit_codes_and_messages_equal_those_of_the_single_commands(words: list[str]) -> None:
    command, *rest = words
    expected = CliRunner().invoke(import_module(MODULES[command]).main, rest, prog_name=command)
    found = run(*words)
    texts = (found.stdout.replace("forward-pass ", ""), found.stderr.replace("forward-pass ", ""))
    assert (found.exit_code, *texts) == (expected.exit_code, expected.stdout, expected.stderr)
    assert found.exit_code != 0


def test_an_unknown_command_is_answered_with_the_known_ones() -> None:
    found = run("trian", "x.toml")
    assert found.exit_code == 2
    assert "trian: expected one of train, models, serve; did you mean 'train'?" in found.stderr


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The image of the service holds no training code."""
    found_spec = forward_pass.find_spec
    monkeypatch.setattr(forward_pass, "find_spec", lambda name: None if name == "training" else found_spec(name))
    found = run("train", "x.toml")
    assert found.exit_code == 2
    problem = "train: expected the package 'training', which is not installed here"
    assert f"{problem}; use the image for training, or install the wheel of Forward Pass" in found.stderr
    assert run("--help").exit_code == 0
    assert run("serve", "--help").exit_code == 0


_INTERRUPTED_IMPORT = """
import os, signal, sys
from model_store import entry_points

class Interrupt:  # Ctrl-C at the first import of click
    def find_spec(self, name, *_):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
signal.signal(signal.SIGINT, signal.default_int_handler)
getattr(entry_points, sys.argv[1])()
"""


@pytest.mark.parametrize("entry_point", ["forward_pass", "train", "models", "serve"])
def test_ctrl_c_during_the_imports_of_a_command_prints_nothing(entry_point: str) -> None:
    words = [sys.executable, "-c", _INTERRUPTED_IMPORT, entry_point]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")  # 130 in a shell


def test_ctrl_c_raises_again_while_a_command_runs() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        with exit_codes():
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
