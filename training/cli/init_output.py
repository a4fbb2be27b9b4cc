"""The output of `train init`: what the new job file trains, leaves out, and needs."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Console

from model_store.cli.terminal import print_wrapped
from model_store.utils.printable import printable
from training.cli.scaffold import JobDraft, describe_faults

_MAX_LEFT_OUT = 8  # columns that are listed


def print_draft(console: Console, path: Path, draft: JobDraft) -> None:
    """Print what a new job file trains, what it leaves out, what must be corrected, and how to go on."""
    console.print(printable(f"Wrote {path}: {draft.summary}."), soft_wrap=True)
    reasons = [f"  {name}: {reason.partition(';')[0]}" for name, reason in draft.left_out.items()]
    if reasons:
        console.print("Left out:")
        more = len(reasons) - _MAX_LEFT_OUT
        for line in reasons[:_MAX_LEFT_OUT] + [f"  and {more} more"] * (more > 0):
            print_wrapped(console, line)
    if draft.error is not None:
        console.print("It cannot be trained yet:")
        for line in describe_faults(draft.error):
            print_wrapped(console, f"  {line.strip()}")
    console.print(f"{'Review it' if draft.error is None else 'Correct that'}, then run:")
    for command in ("train check", "train"):
        console.print(f"  {command} {shlex.quote(str(path))}", soft_wrap=True)
