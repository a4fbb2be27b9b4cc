"""The terminal: what `train` and `models` draw on it, tables and bars. Apart, since `serve` draws nothing and starts
sooner without rich."""

from __future__ import annotations

import os
import sys
from typing import Any

from rich.console import Console as RichConsole
from rich.text import Text

from model_store.cli.common import harmless

_WIDE = 160  # columns for tables that nobody's terminal limits: a file or a pipe


class Console(RichConsole):
    """A rich console that prints strings as they are: no markup, no emoji codes, no control characters."""

    def __init__(self, *, stderr: bool = False) -> None:
        terminal = (sys.stderr if stderr else sys.stdout).isatty()
        width = None if terminal or "COLUMNS" in os.environ else _WIDE
        super().__init__(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(harmless(text), **options)

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - rich calls this while it handles the BrokenPipeError; `exit_codes` ends the program


stdout = Console()
stderr = Console(stderr=True)
