"""The console: the options, streams and exit codes that `train`, `models` and `serve` share.

    @click.command()
    @store_option
    @json_option
    @verbosity_option
    @exit_codes({JobError: 2})
    def command(store: str, as_json: bool) -> None: ...

Answers go to standard output, everything about them to standard error. Exit codes: 0 done, 1 crashed, 2 wrong usage,
3 wrong data or input, 4 training diverged, 5 store or artifact; 130 and 141 for Ctrl-C and a reader that went away,
as a shell expects. The last two are quiet.
"""

from __future__ import annotations

import getpass
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import click

from model_store.artifact.manifest import PRODUCER
from model_store.errors import InputError, ModelStoreError

Command = TypeVar("Command", bound=Callable[..., Any])

_VERBOSITY = "model_store.cli.common.verbosity"
_EXIT_CODES: dict[type[Exception], int] = {ModelStoreError: 5, InputError: 3}
# Names and descriptions come from files of other people: they must not steer the terminal that shows them.
_CONTROLS = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "\N{REPLACEMENT CHARACTER}")


def store_option(command: Command) -> Command:
    """`--store ADDRESS`, passed as `store: str`."""
    return click.option(
        "--store",
        metavar="ADDRESS",
        envvar="MODEL_STORE",
        default="./models",
        show_default=True,
        show_envvar=True,
        help="Directory or bucket of the model store.",
    )(command)


def json_option(command: Command) -> Command:
    """`--json`, passed as `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Answer in JSON on standard output.")(command)


def version_option(command: Command) -> Command:
    """`--version`, of the package that all the commands come with."""
    program, _, version = PRODUCER.partition(" ")
    return click.version_option(version, "--version", prog_name=program)(command)


def verbosity_option(command: Command) -> Command:
    """`-v` and `-q`, each as often as expected; read with `verbosity()`."""

    def count(context: click.Context, option: click.Parameter, value: int) -> None:
        change = -value if option.name == "quiet" else value
        context.meta[_VERBOSITY] = context.meta.get(_VERBOSITY, 0) + change

    louder = click.option("-v", "--verbose", count=True, expose_value=False, callback=count, help="Say more.")
    quieter = click.option("-q", "--quiet", count=True, expose_value=False, callback=count, help="Say less.")
    return louder(quieter(command))


def verbosity() -> int:
    """0 as a rule, one more for each `-v`, one less for each `-q`."""
    context = click.get_current_context(silent=True)
    return 0 if context is None else int(context.meta.get(_VERBOSITY, 0))


def user() -> str:
    """Who runs this command, for the record: a name, or the number of a user that has none, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def harmless(text: str) -> str:
    """The text without characters that steer a terminal."""
    return text.translate(_CONTROLS)


def note(message: str) -> None:
    """Tell the user what happened, on standard error; `-q` leaves it out."""
    if verbosity() >= 0:
        click.echo(harmless(message), err=True)


def print_json(value: Any) -> None:
    plain = (sys.stdout.encoding or "").lower() not in {"utf-8", "utf8"}
    click.echo(json.dumps(value, indent=2, ensure_ascii=plain, allow_nan=False))


def fail(error: Exception | str, code: int) -> NoReturn:
    """Say what is wrong on standard error, every fault of an InputError on a line, and exit. `-vv`: the traceback."""
    if isinstance(error, Exception) and verbosity() >= 2:
        click.echo(harmless("".join(traceback.format_exception(error))), err=True)
    message = str(error)
    if isinstance(error, InputError) and error.total > 1:
        more = [f"and {error.total - len(error.faults)} more"] if error.total > len(error.faults) else []
        message = "\n  ".join([f"{error.total} faults", *map(str, error.faults), *more])
    plain = False if os.environ.get("NO_COLOR") else None
    click.echo(click.style("Error: ", fg="red", bold=True) + harmless(message), err=True, color=plain)
    sys.exit(code)


@contextmanager
def exit_codes(codes: Mapping[type[Exception], int] | None = None) -> Iterator[None]:
    """Turn every way in which a command can fail into a message and an exit code; the closest class counts.

    Decorates the function of a command, below its options. `codes` adds exceptions to the package's own.
    """
    known = {**_EXIT_CODES, **(codes or {})}
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a ? for what a terminal without UTF-8 has no letter for
    try:
        yield
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)
    except BrokenPipeError:
        # The interpreter flushes standard output once more when it ends: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)
    except (click.ClickException, click.exceptions.Exit):
        raise
    except MemoryError as error:
        fix = "take a smaller model, fewer rows at a time, or more memory"
        fail(f"not enough memory: {str(error) or 'none is left'}; {fix}", 1)
    except Exception as error:  # noqa: BLE001 - the last place that can turn a crash into a sentence
        code = next((known[kind] for kind in type(error).__mro__ if kind in known), None)
        if code is not None:
            fail(error, code)
        if verbosity() < 2:
            note("This is a bug in Forward Pass, not in your input; -vv shows where it is.")
        fail(f"{type(error).__name__}: {error}" if verbosity() < 2 else error, 1)
