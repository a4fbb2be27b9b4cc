"""The command `models`. Each imported module adds its commands to the group `main`."""

from __future__ import annotations

from model_store.cli import alias, compare, export, import_, remove, replay, report, show, sign, stores, verify
from model_store.cli.group import main
from model_store.cli.predict import command as predict

__all__ = [
    "alias",
    "compare",
    "export",
    "import_",
    "main",
    "predict",
    "remove",
    "replay",
    "report",
    "show",
    "sign",
    "stores",
    "verify",
]
