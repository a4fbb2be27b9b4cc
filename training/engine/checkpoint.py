"""The checkpoint: one .npz file from which an interrupted training goes on, to the bytes it would have come to.

It holds the `state()` of everything that changes while a network trains, and the identity of the job it belongs to:
settings and data. It is written under another name, synced and renamed, so that a crash at any moment leaves the last
checkpoint or the one before it, never half of one.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np

from model_store.errors import Fault
from model_store.nn import Array
from model_store.utils.atomic_write import atomic_write, fsync_directory, remove_temporary_files
from training.errors import DAMAGED_FILE_ERRORS, FaultListError, TrainingError

DEFAULT_INTERVAL_SECONDS = 60.0
_IDENTITY = "identity"
# Checkpoints written by 0.1.0 before its release have the names on the left.
_RENAMED = {"watch/": "early_stopping/", "training/chance": "training/rng_states"}


class Stateful(Protocol):
    """Something that changes while a network trains."""

    def state(self) -> Mapping[str, Array]:
        """All of it, as arrays by name."""
        ...

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Becomes what `state()` told of."""
        ...


class CheckpointError(FaultListError):
    """A checkpoint that cannot be continued from, or one that would be lost."""


class InterruptedTrainingError(TrainingError):
    """A signal ended the training; `saved` says whether the checkpoint holds all of it."""

    def __init__(self, number: int, path: Path, problem: str) -> None:
        self.signal, self.path, self.saved = signal.Signals(number), path, not problem
        super().__init__(f"stopped by {self.signal.name}; {problem or f'what it has learned is kept in {path}'}")


class Checkpoint:
    """Keeps a training in the file `path`: every so many `seconds`, and when a signal ends it.

    `train` tells when a step is over, registers what it keeps (`register`) and goes on from the file where `resume` is
    true (`restore`). A checkpoint that cannot be written is no reason to end a training: `warn` is told, once.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any],
        *,
        resume: bool = False,
        seconds: float = DEFAULT_INTERVAL_SECONDS,
        warn: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path, self.identity, self.seconds = path, json.loads(json.dumps(identity)), seconds
        self._warn, self._clock = warn, clock
        self._parts: dict[str, Stateful] = {}
        self._signal: int | None = None
        self._next = clock() + seconds
        self._owned = False  # whether the file is this training's
        self._arrays = self._open(resume)
        if resume:
            self._remove_temporary_files()

    @property
    def has_state(self) -> bool:
        """Whether there is something to go on from."""
        return bool(self._arrays)

    def register(self, **parts: Stateful) -> None:
        """Keep these too, by name."""
        self._parts.update(parts)

    def restore(self) -> bool:
        """Bring all parts to where the file left them; False where there is nothing to go on from.

        CheckpointError where a part cannot be: of another version of this package it may keep something else.
        """
        if not self.has_state:
            return False
        for name, part in self._parts.items():
            mine = name + "/"
            try:
                part.load_state({key.removeprefix(mine): a for key, a in self._arrays.items() if key.startswith(mine)})
            except (TypeError, *DAMAGED_FILE_ERRORS) as error:
                fault = Fault(name, f"expected what this version keeps; found {error}", "remove it to start anew")
                raise CheckpointError(str(self.path), [fault]) from error
        self._arrays = {}
        return True

    def due(self) -> bool:
        """Whether it is time for `save`."""
        return self._signal is not None or self._clock() >= self._next

    def save(self) -> None:
        """Write the file. InterruptedTrainingError afterwards, where a signal wants the training to end."""
        problem = ""
        try:
            self._write()
        except OSError as error:
            problem = f"the checkpoint {self.path} could not be written: {error.strerror or error}"
            if self._signal is None:
                self._warn(f"{problem}; the training goes on")
                self._warn = lambda _: None
        if self._signal is not None:
            raise InterruptedTrainingError(self._signal, self.path, problem)
        self._next = self._clock() + self.seconds

    def remove(self) -> None:
        """The training has come to its end: nothing is left to continue. What another one left stays."""
        self._remove_temporary_files()
        with suppress(OSError):
            if self._owned:
                self.path.unlink(missing_ok=True)

    def _remove_temporary_files(self) -> None:
        """Remove what trainings that were killed in the middle of `save` left: each may be as large as a checkpoint."""
        with suppress(OSError):
            remove_temporary_files(self.path)

    @contextmanager
    def stop_on_signals(self) -> Iterator[None]:
        """Within, SIGTERM and SIGINT end the training after its step, and keep it; a second one ends it at once."""

        def note(number: int, _: FrameType | None) -> None:
            self._signal = number
            signal.signal(number, before[number])

        before: dict[int, Any] = {}
        try:
            with suppress(ValueError):  # of a thread that is not the main one: there signals are not ours to heed
                before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _write(self) -> None:
        arrays = {f"{name}/{key}": a for name, part in self._parts.items() for key, a in part.state().items()}
        arrays[_IDENTITY] = json_to_array(self.identity)
        with atomic_write(self.path) as file:
            np.savez(file, allow_pickle=False, **arrays)
        self._owned = True
        fsync_directory(self.path.parent)

    def _open(self, resume: bool) -> dict[str, Array]:
        """The arrays to go on from. CheckpointError where the file is another job's, or would be lost."""
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = dict(archive)
            identity = json_from_array(arrays.pop(_IDENTITY))
        except FileNotFoundError:
            return {}
        except (TypeError, *DAMAGED_FILE_ERRORS) as error:
            if not resume:
                self._owned = True  # of no use to anybody: the next checkpoint takes its place
                return {}
            fault = Fault("", f"expected a checkpoint of a training; found {error}", "remove it to start anew")
            raise CheckpointError(str(self.path), [fault]) from error
        differences = list(_differences(identity, self.identity))
        if resume and differences:
            fix = "go back to that, or leave --resume out to start anew"
            faults = [
                Fault(location, f"expected {kept}, as the training began; found {found}", fix)
                for location, kept, found in differences
            ]
            raise CheckpointError(str(self.path), faults)
        if not resume and not differences:
            problem = "an interrupted training of this very job is kept there"
            raise CheckpointError(
                str(self.path), [Fault("", problem, "--resume continues it; remove it to start anew")]
            )
        if not resume:
            settings = "; ".join(f"{location} {kept}, here {found}" for location, kept, found in differences)
            self._warn(
                f"{self.path} keeps another training that was interrupted ({settings}): "
                "it is lost once this one is kept there, unless you move it away"
            )
            return {}
        self._owned = True
        return {_current_name(name): array for name, array in arrays.items()}


def _current_name(name: str) -> str:
    for old, new in _RENAMED.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def json_to_array(value: Any) -> Array:
    """Plain data as an array of its JSON's bytes."""
    text = json.dumps(value, default=lambda array: array.tolist())
    return np.frombuffer(text.encode(), np.uint8)


def json_from_array(array: Array) -> Any:
    return json.loads(array.tobytes())


def _differences(kept: Any, found: Any, location: str = "") -> Iterator[tuple[str, str, str]]:
    """Where two pieces of plain data differ, and how."""
    if isinstance(kept, dict) and isinstance(found, dict):
        for key in dict.fromkeys([*kept, *found]):
            inner = f"{location}.{key}".removeprefix(".")
            yield from _differences(kept.get(key), found.get(key), inner)
    elif kept != found:
        yield location, _describe(kept), _describe(found)


def _describe(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)
