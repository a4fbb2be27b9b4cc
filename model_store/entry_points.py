"""The entry points of `forward-pass`, `train`, `models` and `serve`.

Imports take some tenths of a second. Until the command itself runs (see `exit_codes` in cli/common.py), Ctrl-C ends the
process by the signal, without a traceback.
"""

from __future__ import annotations

import gc
import signal
from importlib import import_module


def _run(module: str) -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if the shell ignores it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()  # imports leave little garbage, and looking for it takes a twelfth of their time
    main = import_module(module).main
    gc.freeze()
    gc.enable()
    main()


def forward_pass() -> None:
    _run("forward_pass")


def train() -> None:
    _run("training.cli.main")


def models() -> None:
    _run("model_store.cli.main")


def serve() -> None:
    _run("service.cli")
