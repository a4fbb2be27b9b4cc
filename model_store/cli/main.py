"""The command `models`. Each imported module adds its commands to the group `main`."""

from __future__ import annotations

from model_store.cli import alias, compare, init, predict, remove, replay, report, show, sign, verify
from model_store.cli.group import main

__all__ = [
    "alias",
    "compare",
    "init",
    "main",
    "predict",
    "remove",
    "replay",
    "report",
    "show",
    "sign",
    "verify",
]
