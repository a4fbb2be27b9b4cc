"""Command-line basics: the options, output streams and exit codes that `train`, `models` and `serve` share.

    @click.command()
    @store_option
    @json_option
    @verbosity_option
    @exit_codes({JobError: 2})
    def command(store: str, as_json: bool) -> None: ...

Results go to standard output; notes and errors go to standard error. With --json standard output is one JSON document,
the result or `{"error": {"message", "exit_code", "faults", "total"}}`. Exit codes: 0 success, 1 crash, 2 usage error
or an unusable path, 3 invalid data or input, 4 training diverged, 5 store or artifact error. Ctrl-C exits with 130 and
a closed output pipe with 141, as shells expect, both without a message.
"""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, ClassVar, NoReturn, TypeVar

import click

from model_store.artifact.manifest import PRODUCER
from model_store.errors import Fault, InputError, ModelStoreError, SigningKeyError
from model_store.utils.atomic_write import atomic_write
from model_store.utils.printable import printable

Command = TypeVar("Command", bound=Callable[..., Any])

_VERBOSITY_KEY = "model_store.cli.common.verbosity"
_PRINTED_JSON_KEY = "model_store.cli.common.printed_json"
_DEFAULT_EXIT_CODES: dict[type[Exception], int] = {ModelStoreError: 5, InputError: 3, SigningKeyError: 2}

# Fixes of errors of the operating system: they concern a file, a disk or a limit, and are no bug of this program.
_OS_ERROR_FIXES = {
    errno.ENOENT: "check the path; its directory must exist",
    errno.EACCES: "choose another path, or change the permissions",
    errno.EPERM: "choose another path, or change the permissions",
    errno.EISDIR: "name a file in the directory",
    errno.ENOTDIR: "check the path; a part of it is a file",
    errno.EEXIST: "choose another path",
    errno.ENOSPC: "free space on the disk, or choose another path",
    errno.EDQUOT: "free space of your quota, or choose another path",
    errno.EFBIG: "choose a disk that allows files of this size",
    errno.EROFS: "choose a path on a disk that can be written",
    errno.ELOOP: "remove the symbolic link that leads back to itself",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ENXIO: "choose another path; this is not a file, or nothing reads from it",
    errno.ENODEV: "choose another path; this is not a file",
    errno.EBUSY: "choose another path; this one is in use or a mount point",
    errno.ETXTBSY: "choose another path; this one is a running program",
    errno.EIO: "check the disk, or choose another path",
    errno.ESTALE: "mount the network drive again, or choose another path",
    errno.EMFILE: "allow more open files: ulimit -n",
    errno.ENFILE: "close other programs, or allow more open files",
}


class CommandGroup(click.Group):
    """A group of commands whose usage errors are JSON, too, if `--json` is given."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> click.Context:
        with self._usage_errors(as_json="--json" in args):
            context = super().make_context(info_name, args, *rest, **extra)
        context.meta.setdefault(_PRINTED_JSON_KEY, False if "--json" in args else None)
        return context

    def invoke(self, ctx: click.Context) -> Any:
        with self._usage_errors(as_json=ctx.meta.get(_PRINTED_JSON_KEY) is not None):
            return super().invoke(ctx)

    @staticmethod
    @contextmanager
    def _usage_errors(*, as_json: bool) -> Iterator[None]:
        try:
            yield
        except click.ClickException as error:
            if isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter):
                error.ctx = None  # then click prints no usage: the value is wrong, not the usage
            if as_json:
                error.show()
                _print_json_error(error, error.format_message(), error.exit_code)
                sys.exit(error.exit_code)
            raise


class Duration(click.ParamType[timedelta]):
    """A duration such as 30s, 15m, 24h or 7d."""

    name = "duration"
    UNITS: ClassVar = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        number, unit = str(value)[:-1], self.UNITS.get(str(value)[-1:])
        if unit is None or not (number.isascii() and number.isdigit() and len(number) < 8):
            self.fail(f"expected a duration such as 30s, 15m, 24h or 7d; found {value!r}", param, ctx)
        return timedelta(**{unit: int(number)})


def store_option(command: Command) -> Command:
    """Add `--store STORE`, passed as `store: str`."""
    return click.option(
        "--store",
        metavar="STORE",
        envvar="MODEL_STORE",
        default="./models",
        show_default=True,
        show_envvar=True,
        help="Directory or bucket URL of the model store.",
    )(command)


def json_option(command: Command) -> Command:
    """Add `--json`, passed as `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)


def version_option(command: Command) -> Command:
    """Add `--version`, which prints the version of the package."""
    program, _, version = PRODUCER.partition(" ")
    return click.version_option(version, "--version", prog_name=program)(command)


def verbosity_option(command: Command) -> Command:
    """Add the repeatable flags `-v` and `-q`; read them with `verbosity()`."""

    def count(context: click.Context, option: click.Parameter, value: int) -> None:
        change = -value if option.name == "quiet" else value
        context.meta[_VERBOSITY_KEY] = context.meta.get(_VERBOSITY_KEY, 0) + change

    verbose_help = "Print more; -vv also prints the traceback of an error."
    verbose = click.option("-v", "--verbose", count=True, expose_value=False, callback=count, help=verbose_help)
    quiet = click.option("-q", "--quiet", count=True, expose_value=False, callback=count, help="Print less.")
    return verbose(quiet(command))


def verbosity() -> int:
    """Return 0 by default, one more for each `-v` and one less for each `-q`."""
    context = click.get_current_context(silent=True)
    return 0 if context is None else int(context.meta.get(_VERBOSITY_KEY, 0))


@contextmanager
def open_output(name: str) -> Iterator[IO[str]]:
    """Open a file in UTF-8 that appears complete or not at all; "-" is standard output."""
    if name == "-":
        with click.open_file(name, "w", encoding="utf-8") as file:
            yield file
        return
    if name.endswith(os.sep):  # Path drops it
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    with atomic_write(Path(name), "x", encoding="utf-8", newline="") as file:
        yield file


def print_note(message: str) -> None:
    """Print a message to standard error, unless `-q` is given."""
    if verbosity() >= 0:
        click.echo(printable(message), err=True)


def print_json(value: Any) -> None:
    """Print a value as indented JSON to standard output."""
    context = click.get_current_context(silent=True)
    if context is not None:
        context.meta[_PRINTED_JSON_KEY] = True
    ascii_only = (sys.stdout.encoding or "").lower() not in {"utf-8", "utf8"}
    click.echo(printable(json.dumps(value, indent=2, ensure_ascii=ascii_only, allow_nan=False), keep="\n"))


def fail(error: Exception | str, code: int) -> NoReturn:
    """Print the error to standard error, one line for each fault of an InputError, and exit. `-vv`: the traceback.

    With --json it is also printed to standard output as JSON, unless a result is there.
    """
    if isinstance(error, Exception) and verbosity() >= 2:
        click.echo(printable("".join(traceback.format_exception(error)), keep="\n"), err=True)
    message = str(error)
    context = click.get_current_context(silent=True)
    if context is not None and context.params.get("as_json") and not context.meta.get(_PRINTED_JSON_KEY):
        _print_json_error(error, message, code)
    if isinstance(error, InputError) and error.total == 1:
        message = printable(message)
    elif isinstance(error, InputError):
        more = [f"and {error.total - len(error.faults)} more"] if error.total > len(error.faults) else []
        message = "\n  ".join(map(printable, [f"{error.total} problems", *map(str, error.faults), *more]))
    color = False if os.environ.get("NO_COLOR") else None
    click.echo(click.style("Error: ", fg="red", bold=True) + printable(message, keep="\n"), err=True, color=color)
    sys.exit(code)


def _print_json_error(error: Exception | str, message: str, code: int) -> None:
    found = (Fault("", one) if isinstance(one, str) else one for one in getattr(error, "faults", ()))
    faults = [fault.as_dict() for fault in found]
    total = getattr(error, "total", len(faults))
    print_json({"error": {"message": message, "exit_code": code, "faults": faults, "total": total}})


def describe_os_error(error: OSError) -> str:
    """Return "PATH: what went wrong; how to fix it"."""
    path = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    fix = _OS_ERROR_FIXES.get(error.errno or 0, "check the path")
    return f"{path}{(error.strerror or str(error)).lower()}; {fix}"


@contextmanager
def exit_codes(codes: Mapping[type[Exception], int] | None = None) -> Iterator[None]:
    """Turn every exception of a command into a message and an exit code; the most specific class decides.

    Decorates the function of a command, below its options. `codes` adds exceptions to those of this package.
    """
    known = {**_DEFAULT_EXIT_CODES, **(codes or {})}
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # print ? for what a terminal without UTF-8 cannot show
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # set while the command was imported: see entry_points.py
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)
    except BrokenPipeError:
        # The interpreter flushes standard output again at exit: send that to /dev/null.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)
    except (click.ClickException, click.exceptions.Exit):
        raise
    except MemoryError as error:
        fix = "use a smaller model, fewer rows at a time, or more memory"
        fail(f"not enough memory: {str(error) or 'none is left'}; {fix}", 1)
    except Exception as error:  # noqa: BLE001 - the last place that can turn a crash into a message
        code = next((known[kind] for kind in type(error).__mro__ if kind in known), None)
        if code is not None:
            fail(error, code)
        if isinstance(error, OSError) and (error.filename is not None or error.errno in _OS_ERROR_FIXES):
            fail(error if verbosity() > 1 else describe_os_error(error), 2)
        if verbosity() < 2:
            print_note("This is a bug in Forward Pass, not in your input. Run with -vv to see the traceback.")
        fail(f"{type(error).__name__}: {error}" if verbosity() < 2 else error, 1)
