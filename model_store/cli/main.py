"""The command `models`. Each imported module adds its commands to the group `main`."""

from __future__ import annotations

from model_store.cli import alias, export, import_, remove, replay, sign, stores, verify
from model_store.cli.describe import card, compare, report, show
from model_store.cli.group import main
from model_store.cli.predict import command as predict

__all__ = [
    "alias",
    "card",
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
