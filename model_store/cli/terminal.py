"""Rich consoles for the tables and progress bars of `train` and `models`.

`serve` does not import this module: it draws nothing, and starts faster without rich.
"""

from __future__ import annotations

import os
import sys
import textwrap
from typing import Any

from rich.console import Console as RichConsole
from rich.text import Text

from model_store.utils.printable import printable

_PIPE_WIDTH = 160  # columns of output that goes to a file or a pipe


class Console(RichConsole):
    """A rich console that prints strings without markup and emoji codes, and escapes what is not visible."""

    def __init__(self, *, stderr: bool = False) -> None:
        terminal = (sys.stderr if stderr else sys.stdout).isatty()
        width = None if terminal or "COLUMNS" in os.environ else _PIPE_WIDTH
        super().__init__(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        # A line break, too: this program prints its lines one by one.
        return super().render_str(printable(text), **options)

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - rich calls this while it handles the BrokenPipeError; `exit_codes` ends the program


def print_wrapped(console: RichConsole, line: str) -> None:
    """Print a line; on a terminal break it between words, and indent the lines that follow."""
    text = printable(line)
    if not console.is_terminal:
        console.print(text, soft_wrap=True)
        return
    indent = " " * (len(text) - len(text.lstrip()) + 2)
    wrapped = textwrap.wrap(
        text, console.width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    for part in wrapped:
        console.print(part, soft_wrap=True)


stdout = Console()
stderr = Console(stderr=True)
