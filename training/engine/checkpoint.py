"""The checkpoint: one .npz file from which an interrupted training resumes, with the same bits as if uninterrupted.

It holds the `state()` of everything that changes during training, and the identity of its job: settings and data. It is
written to a temporary file, synced and renamed, so that a crash at any moment leaves a complete checkpoint, the last or
the one before.
"""

from __future__ import annotations

import json
import os
import signal
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from model_store.errors import Fault
from model_store.nn import Array
from model_store.utils.atomic_write import atomic_write, fsync_directory, remove_temporary_files
from model_store.utils.regular_file import open_regular
from training.engine.stop_signals import handle_stop_signals
from training.engine.training_lock import InUseError, TrainingLock, lock_training
from training.errors import DAMAGED_FILE_ERRORS, FaultListError, TrainingError
from training.stored_arrays import check_stored, read_stored

DEFAULT_INTERVAL_SECONDS = 60.0
_IDENTITY_KEY = "identity"
_MAX_IDENTITY_BYTES = 1 << 24  # settings with the names of 100,000 columns take some megabytes
_MAX_SHOWN_CHARACTERS = 200  # of a setting in a message
_DAMAGE = (TypeError, AttributeError, *DAMAGED_FILE_ERRORS)  # what reading garbage raises
# Older checkpoints have the names on the left.
_RENAMED_KEYS = {"watch/": "early_stopping/", "training/chance": "training/rng_states"}


class Stateful(Protocol):
    """Something that changes during training."""

    def state(self) -> Mapping[str, Array]:
        """Return the complete state, as arrays by name."""
        ...

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore what `state()` returned."""
        ...


@runtime_checkable
class CountsEpochs(Protocol):
    """A part that knows how many epochs are finished."""

    @property
    def finished_epochs(self) -> int: ...


class CheckpointError(FaultListError):
    """A checkpoint cannot be resumed, or would be overwritten."""


class InterruptedTrainingError(TrainingError):
    """A signal ended the training; `saved` is True if the checkpoint holds its state."""

    def __init__(self, number: int, path: Path, problem: str) -> None:
        self.signal, self.path, self.saved = signal.Signals(number), path, not problem
        super().__init__(f"stopped by {self.signal.name}; {problem or f'the training is saved in {path}'}")


class Checkpoint:
    """Saves a training in the file `path`: every `seconds`, and when a signal ends it.

    `train` registers what to save (`register`), restores it if `resume` is true (`restore`), and saves between steps
    when it is `due`. If the checkpoint cannot be written, the training continues and `warn` is called once.

    A checkpoint belongs to one training at a time (training_lock.py). While another process trains with it, `resume` is
    a CheckpointError, and a new training saves nothing.
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
        self._owned = False  # whether the file belongs to this training
        self._lock: TrainingLock | None = None
        self._other = self._lock_file(resume)  # the training that the file belongs to, or ""
        self._arrays = {} if self._other else self._open(resume)
        if resume:
            self._remove_temporary_files()

    @property
    def has_state(self) -> bool:
        """Whether there is a state to resume from."""
        return bool(self._arrays)

    def register(self, **parts: Stateful) -> None:
        """Save these parts as well, by name."""
        self._parts.update(parts)

    def restore(self, *names: str) -> bool:
        """Restore these parts from the file, or all of them. Return False if there is no state to resume from.

        CheckpointError if a part does not fit, for example because another version of this package wrote the file.
        """
        if not self.has_state:
            return False
        for name, part in self._parts.items():
            if names and name not in names:
                continue
            mine = name + "/"
            try:
                part.load_state({key.removeprefix(mine): a for key, a in self._arrays.items() if key.startswith(mine)})
            except _DAMAGE as error:
                problem = f"expected the state of this version, found {str(error) or type(error).__name__}"
                fault = Fault(name, problem, "remove the file to start again")
                raise CheckpointError(str(self.path), [fault]) from error
        if not names:
            self._check_epochs()
            self._arrays = {}
        return True

    def _check_epochs(self) -> None:
        """Raise CheckpointError unless all parts that count epochs have finished the same number."""
        parts = self._parts.items()
        counts = {name: part.finished_epochs for name, part in parts if isinstance(part, CountsEpochs)}
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{count} in {name}" for name, count in counts.items())
            problem = f"expected one number of finished epochs, found {found}"
            raise CheckpointError(str(self.path), [Fault("", problem, "remove the file to start again")])

    def due(self) -> bool:
        """Whether it is time for `save`."""
        return self._signal is not None or (self._clock() >= self._next and not self._other)

    @property
    def interrupted(self) -> bool:
        """Whether a signal has arrived, which the next `save` raises."""
        return self._signal is not None

    def save(self) -> None:
        """Write the file, then raise InterruptedTrainingError if a signal has arrived."""
        problem = self._other and f"the training is not saved, as {self.path} belongs to {self._other}"
        try:
            if not problem:
                self._write()
        except OSError as error:
            problem = f"the checkpoint {self.path} could not be written: {error.strerror or error}"
            if self._signal is None:
                self._warn(f"{problem}; training continues")
                self._warn = lambda _: None
        if self._signal is not None:
            number, self._signal = self._signal, None
            raise InterruptedTrainingError(number, self.path, problem)
        self._next = self._clock() + self.seconds

    def remove(self) -> None:
        """Remove the file at the end of the training. A file of another training stays."""
        self._remove_temporary_files()
        with suppress(OSError):
            if self._owned:
                self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let other trainings have the file; the end of the process does too."""
        if self._lock is not None:
            self._lock.release()

    def _remove_temporary_files(self) -> None:
        """Remove temporary files of trainings that were killed during `save`; each may be as large as a checkpoint.

        Without the lock, one may belong to a training that is saving.
        """
        if self._lock is not None:
            with suppress(OSError):
                remove_temporary_files(self.path)

    def _lock_file(self, resume: bool) -> str:
        """Lock the checkpoint. Return the other training that has locked it, or "". CheckpointError with `resume`."""
        try:
            self._lock = lock_training(self.path)
            return ""
        except InUseError as error:
            other = f"another training, process {error}"
            fix = "wait until it ends or stop it, or choose another directory with --checkpoint"
            if resume:
                raise CheckpointError(str(self.path), [Fault("", f"belongs to {other}", fix)]) from error
            self._warn(f"{self.path} belongs to {other}: this training is not saved ({fix})")
            return other

    @contextmanager
    def stop_on_signals(self) -> Iterator[None]:
        """Save and end the training after its step on SIGTERM or SIGINT; a second signal ends it at once.

        A signal after the last step ends it before the evaluation. A training that was long enough to be saved is saved
        again at its end, so that a signal during the evaluation loses none of it.
        """

        def note(number: int) -> None:
            self._signal = number

        with handle_stop_signals(note):
            yield
            if self._signal is not None or (self._owned and not self._other):
                self.save()

    def _write(self) -> None:
        arrays = {f"{name}/{key}": a for name, part in self._parts.items() for key, a in part.state().items()}
        arrays[_IDENTITY_KEY] = json_to_array(self.identity)
        with atomic_write(self.path) as file:
            np.savez(file, allow_pickle=False, **arrays)
        self._owned = True
        fsync_directory(self.path.parent)

    def _open(self, resume: bool) -> dict[str, Array]:
        """Return the arrays to resume from. CheckpointError if the file is another job's, or would be overwritten."""
        try:
            with open_regular(self.path) as file, zipfile.ZipFile(file) as archive:
                check_stored(archive, os.fstat(file.fileno()).st_size)
                identity = json_from_array(read_stored(archive, _IDENTITY_KEY, _MAX_IDENTITY_BYTES))
                differences = list(find_differences(identity, self.identity))
                names = {name.removesuffix(".npy") for name in archive.namelist()} - {_IDENTITY_KEY}
                needed = sorted(names) if resume and not differences else ()
                arrays = {_current_name(name): read_stored(archive, name) for name in needed}
        except FileNotFoundError:
            return {}
        except _DAMAGE as error:
            if not resume:
                self._owned = True  # damaged: the next checkpoint replaces it
                return {}
            fault = Fault("", f"expected a checkpoint of a training, found {error}", "remove the file to start again")
            raise CheckpointError(str(self.path), [fault]) from error
        if resume and differences:
            fix = "restore the old value, or start again without --resume"
            faults = [
                Fault(location, f"expected {kept}, as when the training began; found {found}", fix)
                for location, kept, found in differences
            ]
            raise CheckpointError(str(self.path), faults)
        if not resume and not differences:
            problem = "holds an interrupted training of this job"
            raise CheckpointError(
                str(self.path), [Fault("", problem, "continue with --resume, or remove the file to start again")]
            )
        if not resume:
            settings = "; ".join(f"{location} {kept}, here {found}" for location, kept, found in differences)
            self._warn(
                f"{self.path} holds another interrupted training ({settings}): "
                "the first checkpoint of this training overwrites it unless you move it"
            )
            return {}
        self._owned = True
        return arrays


def _current_name(name: str) -> str:
    for old, new in _RENAMED_KEYS.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def json_to_array(value: Any) -> Array:
    """Return JSON-compatible data as an array of the bytes of its JSON."""
    text = json.dumps(value, default=lambda array: array.tolist())
    return np.frombuffer(text.encode(), np.uint8)


def json_from_array(array: Array) -> Any:
    return json.loads(array.tobytes())


def find_differences(kept: Any, found: Any, location: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield the location and both values of each difference between two pieces of JSON-compatible data."""
    if isinstance(kept, dict) and isinstance(found, dict):
        for key in dict.fromkeys([*kept, *found]):
            inner = f"{location}.{key}".removeprefix(".")
            yield from find_differences(kept.get(key), found.get(key), inner)
    elif kept != found:
        yield location, _describe(kept), _describe(found)


def _describe(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else text[: _MAX_SHOWN_CHARACTERS - 3] + "..."
