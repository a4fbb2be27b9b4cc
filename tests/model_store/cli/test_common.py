"""Command-line basics: options, output streams, messages and exit codes that all commands share."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from model_store.cli import common
from model_store.cli.common import exit_codes, json_option, print_json, print_note, store_option, verbosity_option
from model_store.cli.terminal import print_wrapped, stdout
from model_store.errors import ArtifactError, Fault, InputError, NotFoundError


class JobError(Exception):
    pass


def run(action, *arguments: str, env: dict[str, str] | None = None):
    @click.command()
    @store_option
    @json_option
    @verbosity_option
    @exit_codes({JobError: 2})
    def command(store: str, as_json: bool) -> None:
        action(store, as_json)

    return CliRunner().invoke(command, arguments, env=env)


def raises(error: BaseException):
    def action(*_: object) -> None:
        raise error

    return action


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
def test_each_exception_has_its_exit_code(error: BaseException, code: int) -> None:
    result = run(raises(error))
    assert result.exit_code == code
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert str(error) in result.stderr


def test_a_memory_error_is_not_reported_as_a_bug() -> None:
    result = run(raises(MemoryError("Unable to allocate 119. GiB for an array")))
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: not enough memory: Unable to allocate 119. GiB for an array; use a smaller")
    assert "bug" not in result.stderr


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC, errno.EISDIR, errno.EROFS, errno.EIO, errno.ENOTTY])
def test_an_error_of_the_operating_system_is_a_users_error_with_a_fix(number: int) -> None:
    result = run(raises(OSError(number, os.strerror(number), "/mnt/out.csv")))
    assert result.exit_code == 2
    assert re.fullmatch(r"Error: /mnt/out.csv: [a-z].+; [a-z].+\n", result.stderr)
    assert "bug" not in result.stderr


def test_errors_are_json_on_standard_output_with_json() -> None:
    faults = [Fault(f"row {i}", "expected a number", "send one") for i in range(150)]
    result = run(raises(InputError(faults)), "--json")
    found = json.loads(result.stdout)["error"]
    assert (found["exit_code"], found["total"], len(found["faults"])) == (3, 150, 100)
    assert found["faults"][0] == {"location": "row 0", "problem": "expected a number", "fix": "send one"}
    assert found["message"].startswith("row 0: expected a number")
    assert result.stderr.startswith("Error: 150 problems")
    found = json.loads(run(raises(ZeroDivisionError("oh")), "--json").stdout)["error"]
    assert (found["message"], found["exit_code"], found["faults"]) == ("ZeroDivisionError: oh", 1, [])


def test_an_error_after_the_result_leaves_one_json_document() -> None:
    def action(*_: object) -> None:
        print_json({"version": 1})
        raise NotFoundError("no alias")

    result = run(action, "--json")
    assert json.loads(result.stdout) == {"version": 1}
    assert result.stderr == "Error: no alias\n"


def test_each_fault_is_a_line() -> None:
    faults = [Fault(f"row {i}", "expected a number", "send one") for i in range(150)]
    lines = run(raises(InputError(faults))).stderr.splitlines()
    assert lines[0] == "Error: 150 problems"
    assert lines[1] == "  row 0: expected a number (send one)"
    assert lines[-1] == "  and 50 more"
    assert len(lines) == 102


def test_a_traceback_is_printed_only_with_vv() -> None:
    assert "Traceback" not in run(raises(ArtifactError("x")), "-v").stderr
    assert "Traceback" in run(raises(ArtifactError("x")), "-vv").stderr
    assert "This is a bug" in run(raises(ZeroDivisionError("x"))).stderr


def test_ctrl_c_prints_nothing() -> None:
    assert run(raises(KeyboardInterrupt())).output == ""


@pytest.mark.parametrize(("arguments", "level"), [((), 0), (("-vv",), 2), (("-q",), -1), (("-v", "-qq"), -1)])
def test_verbosity_counts(arguments: tuple[str, ...], level: int) -> None:
    levels = []
    assert run(lambda *_: levels.append(common.verbosity()), *arguments).exit_code == 0
    assert levels == [level]


def test_notes_go_to_standard_error_unless_quiet() -> None:
    assert run(lambda *_: print_note("published")).stderr == "published\n"
    assert run(lambda *_: print_note("published"), "-q").stderr == ""


def test_the_store_is_taken_from_option_environment_or_default() -> None:
    def print_store(store: str, _: bool) -> None:
        click.echo(store)

    assert run(print_store, "--store", "here", env={"MODEL_STORE": "there"}).stdout == "here\n"
    assert run(print_store, env={"MODEL_STORE": "there"}).stdout == "there\n"
    assert run(print_store, env={"MODEL_STORE": None}).stdout == "./models\n"


def test_json_keeps_unicode_and_rejects_nan() -> None:
    assert run(lambda *_: print_json({"name": "é"})).stdout == '{\n  "name": "é"\n}\n'
    assert run(lambda *_: print_json(float("nan"))).exit_code == 1


def test_control_characters_do_not_reach_the_terminal() -> None:
    shown = run(lambda *_: stdout.print("\x1b[2J\x9b1m[red]:smile:\r\x07")).stdout
    assert shown == "\\u001b[2J\\u009b1m[red]:smile:\\r\\u0007\n"
    assert "\x1b" not in run(raises(ArtifactError("\x1b[31m"))).stderr


def test_a_note_is_wrapped_between_words_on_a_terminal_only(capsys: pytest.CaptureFixture[str]) -> None:
    note = "note: filled in missing values: 82 of alk.phos with 1324, 105 of half-life with 3"
    print_wrapped(Console(width=50, force_terminal=False), note)
    assert capsys.readouterr().out == f"{note}\n"
    print_wrapped(Console(width=50, force_terminal=True, highlight=False), note)
    first, second = capsys.readouterr().out.splitlines()
    assert (first, second) == (note[:46], f"  {note[47:]}")


def test_a_closed_pipe_ends_the_command_without_a_message() -> None:
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


def test_without_utf_8_text_has_question_marks_and_json_has_escapes() -> None:
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
