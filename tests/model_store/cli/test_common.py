"""The console: the same options, streams, messages and exit codes for every command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from model_store.cli import common
from model_store.cli.common import exit_codes, json_option, note, print_json, store_option, verbosity_option
from model_store.cli.terminal import stdout
from model_store.errors import ArtifactError, Fault, InputError, NotFoundError


class JobError(Exception):
    pass


def run(deed, *arguments: str, env: dict[str, str] | None = None):
    @click.command()
    @store_option
    @json_option
    @verbosity_option
    @exit_codes({JobError: 2})
    def command(store: str, as_json: bool) -> None:
        deed(store, as_json)

    return CliRunner().invoke(command, arguments, env=env)


def raises(error: BaseException):
    def deed(*_: object) -> None:
        raise error

    return deed


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError([Fault("row 0", "expected a number")]), 3),
        (ArtifactError("m.npz: damaged"), 5),
        (NotFoundError("no model"), 5),
        (JobError("no target"), 2),
        (click.UsageError("which?"), 2),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (ZeroDivisionError("oh"), 1),
    ],
)
def test_each_kind_of_failure_has_its_exit_code(error: BaseException, code: int) -> None:
    result = run(raises(error))
    assert result.exit_code == code
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert str(error) in result.stderr


def test_too_little_memory_is_no_bug() -> None:
    result = run(raises(MemoryError("Unable to allocate 119. GiB for an array")))
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "Error: not enough memory: Unable to allocate 119. GiB for an array; take a smaller"
    )
    assert "bug" not in result.stderr


def test_every_fault_has_a_line() -> None:
    faults = [Fault(f"row {i}", "expected a number", "send one") for i in range(150)]
    lines = run(raises(InputError(faults))).stderr.splitlines()
    assert lines[0] == "Error: 150 faults"
    assert lines[1] == "  row 0: expected a number (send one)"
    assert lines[-1] == "  and 50 more"
    assert len(lines) == 102


def test_a_traceback_is_for_those_who_ask_for_it() -> None:
    assert "Traceback" not in run(raises(ArtifactError("x")), "-v").stderr
    assert "Traceback" in run(raises(ArtifactError("x")), "-vv").stderr
    assert "This is a bug" in run(raises(ZeroDivisionError("x"))).stderr


def test_ctrl_c_is_quiet() -> None:
    assert run(raises(KeyboardInterrupt())).output == ""


@pytest.mark.parametrize(("arguments", "level"), [((), 0), (("-vv",), 2), (("-q",), -1), (("-v", "-qq"), -1)])
def test_verbosity_counts(arguments: tuple[str, ...], level: int) -> None:
    seen = []
    assert run(lambda *_: seen.append(common.verbosity()), *arguments).exit_code == 0
    assert seen == [level]


def test_notes_go_to_standard_error_unless_quiet() -> None:
    assert run(lambda *_: note("published")).stderr == "published\n"
    assert run(lambda *_: note("published"), "-q").stderr == ""


def test_the_store_comes_from_option_environment_or_default() -> None:
    def deed(store: str, _: bool) -> None:
        click.echo(store)

    assert run(deed, "--store", "here", env={"MODEL_STORE": "there"}).stdout == "here\n"
    assert run(deed, env={"MODEL_STORE": "there"}).stdout == "there\n"
    assert run(deed, env={"MODEL_STORE": None}).stdout == "./models\n"


def test_json_keeps_its_letters_and_refuses_nan() -> None:
    assert run(lambda *_: print_json({"name": "é"})).stdout == '{\n  "name": "é"\n}\n'
    assert run(lambda *_: print_json(float("nan"))).exit_code == 1


def test_text_of_others_cannot_steer_the_terminal() -> None:
    shown = run(lambda *_: stdout.print("\x1b[2J\x9b1m[red]:smile:\r\x07")).stdout
    assert (
        shown
        == "\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}1m[red]:smile:"
        + "\N{REPLACEMENT CHARACTER}" * 2
        + "\n"
    )
    assert "\x1b" not in run(raises(ArtifactError("\x1b[31m"))).stderr


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    program = """
import click
from model_store.cli.common import exit_codes
from model_store.cli.terminal import stdout
@click.command()
@exit_codes()
def command():
    for i in range(100000):
        stdout.print(i)
command()
"""
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=root, env=os.environ
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_somebody_always_ran_the_command(monkeypatch) -> None:
    assert common.user()

    def nobody() -> str:
        raise KeyError("uid")

    monkeypatch.setattr(common.getpass, "getuser", nobody)
    assert common.user() == str(os.getuid())


def test_a_terminal_without_utf_8_gets_question_marks_and_programs_get_escapes() -> None:
    program = """
import sys
from model_store.cli.common import exit_codes, print_json
from model_store.cli.terminal import stdout
with exit_codes():
    stdout.print("R\u00b2 \u2192 1")
    print_json("K\u00f6ln")
"""
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == 'R? ? 1\n"K\\u00f6ln"\n'
