"""Alternating rounds: contestants measured in turn in one run, so that a busy moment affects all of them."""

import os
import sys
from collections.abc import Callable, Mapping
from statistics import median

from threadpoolctl import threadpool_info


def alternate(contestants: Mapping[str, Callable[[], Mapping[str, float]]], rounds: int) -> dict[str, dict[str, float]]:
    """Return the median of each contestant over rounds, each of which starts with another contestant."""
    names = list(contestants)
    measured: dict[str, list[Mapping[str, float]]] = {name: [] for name in names}
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            measured[name].append(contestants[name]())
    return {name: {key: median(one[key] for one in found) for key in found[0]} for name, found in measured.items()}


def unpinned(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which every library's BLAS selects its kernel for the processor.

    Some machines pin OpenBLAS to an older kernel for the sake of older builds, which costs NumPy half of its speed.
    """
    return {name: value for name, value in environ.items() if name not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}


def unpin() -> None:
    """Restart this program if the environment pins the BLAS kernel: NumPy reads it once, at import."""
    if (environ := unpinned(os.environ)) != os.environ:
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)  # noqa: S606 - itself


def machine() -> str:
    """Describe the BLAS: library, kernel and threads."""
    return "; ".join(
        f"{blas['internal_api']} {blas['version']}, {blas['architecture']} kernel, {blas['num_threads']} thread(s)"
        for blas in threadpool_info()
        if blas["user_api"] == "blas"
    )
