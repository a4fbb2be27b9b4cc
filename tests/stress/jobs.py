"""Training jobs: killed, out of disk, with a clock that jumps, on damaged tables.

Whatever happens to a job, the store never has an incomplete version, and `train --resume` ends with the same bytes as
an undisturbed job.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from model_store.errors import ModelStoreError
from model_store.registry.store import open_store
from tests.crashes.test_full_disk import fill
from tests.service.server.server_process import ROOT, until
from tests.stress.store_faults import mounted
from tests.stress.trial import Control, TrialResult
from tests.training.conftest import JOB, flowers

TRAIN = ("-m", "training")
JUMPING = ("-m", "tests.stress.without", "steady clock")
KEEPING = ("--checkpoint-seconds", "0.01", "--resume")
YEARS = (0, 4102444800)  # 1970, 2100: the dates that files are given
_JUNK = [b"\0", b"\xff\xfe", b'"', b",", b"\n", b"\r", b"1e999", b"NaN", b"-", b"\xe2\x80\xa8", b"'", b";", b"=1+1"]


class Job:
    """A job in its own folder, on a table with three kinds of column, that trains in half a second."""

    def __init__(self, folder: Path, epochs: int = 1500) -> None:
        self.folder, self.store, self.checkpoints = folder, folder / "models", folder / "kept"
        folder.mkdir(exist_ok=True)
        (folder / "flowers.csv").write_text(flowers())
        (folder / "flowers.toml").write_text(JOB.replace("epochs = 3", f"epochs = {epochs}\nbatch_size = 5"))

    def start(self, *options: str, program: Sequence[str] = TRAIN) -> subprocess.Popen[str]:
        places = ["--store", str(self.store), "--checkpoint", str(self.checkpoints)]
        words = [sys.executable, *program, str(self.folder / "flowers.toml"), "-q", *places, *options]
        return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *options: str, program: Sequence[str] = TRAIN) -> tuple[int, str]:
        with self.start(*options, program=program) as process:
            said, complaint = process.communicate(timeout=60)
        return process.returncode, said + complaint

    @property
    def published(self) -> bytes:
        path = self.store / "flowers" / "1.npz"
        return path.read_bytes() if path.exists() else b""

    def broken(self) -> list[str]:
        """Return the faults of the versions in the store."""
        if not self.store.exists():
            return []
        store, found = open_store(self.store), []
        for name in store.names():
            for number in store.versions(name):
                try:
                    store.load(name, number)[1].check_golden()
                except ModelStoreError as e:
                    found.append(f"{name}/{number}: {e}")
        return found


def trial(*, short: bool = False) -> TrialResult:
    """60 kills, 20 with a jumping clock, 20 full disks, 40 damaged tables; a tenth of each in the short form."""
    result = TrialResult("training jobs")
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        whole = Job(Path(folder) / "whole")
        began = time.monotonic()
        code, said = whole.run()
        took = time.monotonic() - began
        if code:
            raise RuntimeError(said)
        share = 10 if short else 1
        jobs = {name: Job(Path(folder) / name.replace(" ", "-")) for name in ("SIGKILL", "jumping clock")}
        killed(result, "SIGKILL", jobs["SIGKILL"], whole, 60 // share, took, rng)
        killed(result, "jumping clock", jobs["jumping clock"], whole, 20 // share, took, rng, JUMPING)
        full_disk(result, Path(folder) / "disk", whole, 20 // share, took, rng)
        damaged_tables(result, Path(folder) / "damaged", 40 // share, rng)
    return result


def killed(
    result: TrialResult, name: str, job: Job, whole: Job, times: int, took: float, rng: random.Random,
    program: Sequence[str] = TRAIN,
) -> None:  # fmt: skip
    """Kill a job at random moments, resume it each time, and compare its bytes."""
    ends = 0
    for _ in range(times):
        with job.start(*KEEPING, program=program) as process:
            time.sleep(rng.uniform(0, 1.2 * took))
            process.kill()
            process.communicate()
        result.tried += 1
        for fault in job.broken():
            result.record_loss(f"{name}: {fault}")
        if program is JUMPING:
            for path in (job.folder / "flowers.csv", *job.checkpoints.glob("*"), *job.store.rglob("*.npz")):
                os.utime(path, (rng.choice(YEARS),) * 2)
        if process.returncode == 0 or job.published:
            ends += 1
            _same(result, name, job, whole)
    code, said = job.run(*KEEPING, program=program)
    result.tried += 1
    if code:
        result.record_loss(f"{name}: resuming ended with {code}: {said[-300:]}")
    _same(result, name, job, whole)
    result.measurements[name] = f"{times} kills, {ends + 1} trainings completed with the same bytes"


def _same(result: TrialResult, name: str, job: Job, whole: Job) -> None:
    """Compare the published bytes, and remove them for the next training."""
    if job.published != whole.published:
        result.record_loss(f"{name}: {len(job.published)} bytes that differ from those of an undisturbed job")
    (job.store / "flowers" / "1.npz").unlink(missing_ok=True)


def full_disk(result: TrialResult, folder: Path, whole: Job, times: int, took: float, rng: random.Random) -> None:
    """Fill the disk of a job's store and checkpoints before or while it trains."""
    refused = 0
    with ExitStack() as stack:
        folder.mkdir()
        if not mounted(stack, folder, "size=1m"):
            result.measurements["a full disk"] = "skipped: mounting needs root"
            return
        for _ in range(times):
            job = Job(folder)
            with job.start(*KEEPING) as process:
                time.sleep(rng.uniform(0, took))
                with suppress(OSError):  # the job may be faster
                    fill(folder, leaving=rng.choice([0, 0, 4096, 12288]))
                said = "".join(process.communicate(timeout=60))
            result.tried += 1
            if process.returncode not in {0, 2, 3, 5} or "Traceback" in said:
                result.record_loss(f"a full disk: ended with {process.returncode}: {said[-300:]}")
            refused += process.returncode != 0
            (folder / "ballast").unlink(missing_ok=True)
            for fault in job.broken():
                result.record_loss(f"a full disk: {fault}")
            if process.returncode and "is published, but not its report" not in said:
                code, said = job.run(*KEEPING)
                if code:
                    result.record_loss(f"a full disk: resuming ended with {code}: {said[-300:]}")
            _same(result, "a full disk", job, whole)
        result.measurements["a full disk"] = f"{refused} of {times} jobs stopped, and resumed to the same bytes"


def damaged_tables(result: TrialResult, folder: Path, times: int, rng: random.Random) -> None:
    """Flip, cut, repeat and insert bytes. The job trains on a valid table, and reports an invalid one."""
    codes: dict[int, int] = {}
    for _ in range(times):
        job = Job(folder, epochs=3)
        table = bytearray(flowers().encode())
        for _ in range(rng.choice([1, 1, 2, 20])):
            at, harm = rng.randrange(len(table)), rng.randrange(4)
            if harm == 0:
                table[at] ^= 1 << rng.randrange(8)
            elif harm == 1:
                del table[at : at + rng.choice([1, 10, 1000])]
            elif harm == 2:
                table[at:at] = rng.choice(_JUNK) * rng.choice([1, 1, 100])
            else:
                table[at:at] = table[: rng.randrange(200)]
            table = table or bytearray(b"\n")
        (folder / "flowers.csv").write_bytes(table)
        code, said = job.run()
        result.tried += 1
        codes[code] = codes.get(code, 0) + 1
        if code not in {0, 2, 3, 4} or "Traceback" in said:
            result.record_loss(f"a damaged table: ended with {code}: {said[-300:]}: {bytes(table)[:200]!r}")
        for fault in job.broken():
            result.record_loss(f"a damaged table: {fault}")
        if bool(job.published) != (code == 0):
            result.record_loss(f"a damaged table: ended with {code}, published {len(job.published)} bytes")
        (job.store / "flowers" / "1.npz").unlink(missing_ok=True)
    listed = ", ".join(f"{code}: {n}" for code, n in sorted(codes.items()))
    result.measurements["damaged tables"] = f"exit codes {listed}"


def controls() -> Iterator[Control]:
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder), epochs=3)
        path = job.store / "flowers" / "1.npz"
        with job.start(program=("-m", "tests.stress.without", "atomic publishing")) as process:
            until(path.exists)
            process.kill()
            process.communicate()
        try:
            open_store(job.store).load("flowers", 1)
            seen = "a complete version"
        except ModelStoreError as e:
            seen = f"a broken version: {str(e).rpartition(': ')[2]}"
        yield Control("without atomic publishing", seen.startswith("a broken"), f"a kill left {seen}")
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder))
        with job.start(*KEEPING, program=("-m", "tests.stress.without", "atomic checkpoints")) as process:
            until(lambda: list(job.checkpoints.glob("[!.]*.npz")))
            process.kill()
            process.communicate()
        code, _ = job.run(*KEEPING)
        yield Control("without atomic checkpoints", code != 0, f"after a kill, resuming ended with {code}")
