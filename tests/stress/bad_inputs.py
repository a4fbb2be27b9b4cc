"""Bad inputs: no bytes cause a 500 or end a worker, and a truncated body is never accepted.

Inputs are named cases (cases.py) and random ones by seed: JSON from a grammar with the keys of every protocol, and
valid requests whose body, head or chunks have bytes flipped, cut and inserted.
"""

from __future__ import annotations

import random
import re
import socket
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson

from tests.service.server.server_process import Server
from tests.stress import cases
from tests.stress.cases import Case, sized
from tests.stress.trial import Control, MemoryMonitor, TrialResult, running_service

MAX_GROWTH_MIB, MAX_RETAINED_MIB = 100, 80
TIMEOUT_SECONDS = 60
CLIENTS = 4

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
_KEYS = [
    *("instances", "inputs", "outputs", "model", "version", "name", "shape", "datatype", "data", "parameters", "id"),
    *("signature_name", "binary_data_size", "binary_data", "warnings", "receipt"),
    *("rooms", "area", "island", "mass", "sex", "pixels", "x", "y"),
]
_WORDS = ["price", "penguins", "image", "1", "latest", "default", "FP32", "BYTES", "INT64", "serving_default", "Biscoe"]
_SCALARS = [b"null", b"true", b"false", b"0", b"-1", b"1e308", b"-0.0", b"1e-400", b"9" * 30, b'""', b'"\\u0000"']
_BROKEN = [b"NaN", b"-Infinity", b"1e999", b"01", b"+1", b"'a'", b"undefined", b'"\\ud800"', b"\xff", b"{", b"]", b","]


def trial(*, short: bool = False, seed: int = 0, count: int | None = None) -> TrialResult:
    """Send every named case and 100,000 random ones; 6,000 in the short form."""
    result = TrialResult("bad inputs")
    expected = count or (6_000 if short else 100_000)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(Path(folder)) as server,
        MemoryMonitor(server) as monitor,
    ):
        statuses: Counter[str] = Counter()
        for case in cases.named():
            check_response(result, statuses, case, send_case(server, case))
        lock = threading.Lock()

        def client(number: int) -> None:
            rng = random.Random(f"{seed}-{number}")
            for _ in range(expected // CLIENTS):
                case = random_case(rng)
                found = send_case(server, case)
                with lock:
                    check_response(result, statuses, case, found)

        threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        status, _ = server.ask("POST", "/models/price/predict", {"instances": [[3, 80]]})
        if status != 200:
            result.record_loss(f"a valid request afterwards returned {status}")
        result.measurements["responses"] = ", ".join(f"{status}: {n:,}" for status, n in sorted(statuses.items()))
        result.measurements["dead workers"] = str(monitor.dead_workers)
        if monitor.dead_workers:
            result.record_loss(f"{monitor.dead_workers} workers died: {server.log[-2000:]}", monitor.dead_workers)
    result.check_bound("memory above idle", monitor.growth, MAX_GROWTH_MIB, "MiB")
    result.check_bound("memory retained", monitor.retained, MAX_RETAINED_MIB, "MiB")
    return result


def controls() -> Iterator[Control]:
    """Send the cases that each defence is for to a service without it."""
    whole = [case for case in cases.named() if case.cut]
    yield _control("length check", whole, lambda result, _: result.lost > 0)
    bombs = [case for case in cases.named() if ": a bomb of 200 MB" in case.name]
    yield _control("decompression limit", bombs, lambda _, monitor: monitor.growth > MAX_GROWTH_MIB)
    large = [case for case in cases.named() if len(case.request) > 1 << 19] * 2
    yield _control("returning memory", large, lambda _, monitor: monitor.retained > MAX_RETAINED_MIB)


def _control(without: str, harm: list[Case], hurt: Callable[[TrialResult, MemoryMonitor], bool]) -> Control:
    result, statuses = TrialResult(without), Counter[str]()
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(Path(folder), without=without) as server,
        MemoryMonitor(server) as monitor,
    ):
        for case in harm:
            check_response(result, statuses, case, send_case(server, case))
        time.sleep(0.5)
    memory = f"memory {monitor.growth:.0f} MiB above idle, {monitor.retained:.0f} afterwards"
    return Control(
        f"without {without}", hurt(result, monitor), f"{result.lost} of {result.tried} handled wrongly, {memory}"
    )


def check_response(result: TrialResult, statuses: Counter[str], case: Case, response: bytes | None) -> None:
    result.tried += 1
    if response is None:
        result.record_loss(f"{case.name}: no complete response within {TIMEOUT_SECONDS} s: {case.request[:300]!r}")
        return
    found = [int(status) for status in _STATUS.findall(response) if status != b"100"]
    statuses.update(map(str, found) if found else ["closed"])
    if 500 in found:
        result.record_loss(f"{case.name}: 500: {case.request[:300]!r}")
    if case.cut and 200 in found:
        result.record_loss(f"{case.name}: a truncated body returned 200: {case.request[:300]!r}")
    if case.max_responses is not None and len(found) > case.max_responses:
        result.record_loss(f"{case.name}: {len(found)} responses to one request: {found} {case.request[:300]!r}")


def send_case(server: Server, case: Case) -> bytes | None:
    """Return all that comes back until the connection ends; None if it does not end."""
    response = b""
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_SECONDS) as sock:
            for piece in case.pieces:
                sock.sendall(piece)
            sock.shutdown(socket.SHUT_WR)
            while piece := sock.recv(1 << 16):
                response += piece
    except TimeoutError:
        return None
    except OSError:  # the connection was reset: what came before counts
        pass
    return response


def random_case(rng: random.Random) -> Case:
    make: Callable[[random.Random], Case] = rng.choice(_KINDS)
    return make(rng)


def _by_grammar(rng: random.Random) -> Case:
    return Case("grammar", sized(rng.choice(cases.PATHS), b"".join(_object(rng, 0))))


def _flipped(rng: random.Random) -> Case:
    path, body = rng.choice(cases.GOOD)
    return Case("damaged body", sized(path, bytes(_damaged(rng, bytearray(body)))))


def _damaged_head(rng: random.Random) -> Case:
    path, body = rng.choice(cases.GOOD)
    head, _, _ = sized(path, body).partition(b"\r\n\r\n")
    return Case("damaged head", bytes(_damaged(rng, bytearray(head))) + b"\r\n\r\n" + body)


def _damaged_chunks(rng: random.Random) -> Case:
    path, body = rng.choice(cases.GOOD)
    cut = rng.randrange(1, len(body))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:cut], body[cut:])) + b"0\r\n\r\n"
    return Case(
        "damaged chunks", cases.head(path, b"Transfer-Encoding: chunked") + bytes(_damaged(rng, bytearray(chunks)))
    )


def _cut_short(rng: random.Random) -> Case:
    path, body = rng.choice(cases.GOOD)
    whole = sized(path, body)
    return Case("cut short", whole[: -rng.randrange(1, len(body))], cut=True)


def _compressed(rng: random.Random) -> Case:
    path, body = rng.choice(cases.GOOD)
    packed = zlib.compress(body, wbits=rng.choice([zlib.MAX_WBITS, 16 + zlib.MAX_WBITS, -zlib.MAX_WBITS]))
    coding = rng.choice([b"gzip", b"deflate", b"br", b"gzip, gzip"])
    return Case("compressed", sized(path, bytes(_damaged(rng, bytearray(packed))), b"Content-Encoding: " + coding))


def _binary(rng: random.Random) -> Case:
    """Make binary tensors whose bytes do not match their JSON."""
    size = rng.choice([0, 1, 4, 8, 16, 2**31, 2**63, -1])
    shape = [rng.choice([0, 1, 2, 4, -1, 2**31, 2**62]) for _ in range(rng.randrange(4))]
    tensor = {
        "name": "pixels",
        "shape": shape,
        "datatype": rng.choice(_WORDS),
        "parameters": {"binary_data_size": size},
    }
    head = orjson.dumps({"inputs": [tensor] * rng.randrange(3)})
    length = rng.choice([len(head), 0, 1, len(head) + 1, 10**12, -1])
    body = head + rng.randbytes(rng.choice([0, 1, 16, 64]))
    return Case("binary", sized("/v2/models/image/infer", body, b"Inference-Header-Content-Length: %d" % length))


_KINDS = [_by_grammar, _by_grammar, _flipped, _damaged_head, _damaged_chunks, _cut_short, _compressed, _binary]


def _damaged(rng: random.Random, data: bytearray) -> bytearray:
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(data) + 1)
        harm = rng.randrange(4)
        if harm == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif harm == 1:
            del data[at : at + rng.randrange(1, 9)]
        elif harm == 2:
            data[at:at] = rng.choice([*_BROKEN, *_SCALARS, b"\r\n", b"\x00", b":", b" ", rng.randbytes(3)])
        else:
            other = rng.randrange(len(data) + 1)
            data[at:at] = data[other : other + rng.randrange(1, 30)]
    return data


def _object(rng: random.Random, depth: int) -> Iterator[bytes]:
    """Make JSON with the keys of the protocols in unlikely places; sometimes invalid JSON."""
    kind = rng.randrange(10) if depth < 6 else 9
    if kind < 4:
        yield b"{"
        for i in range(rng.randrange(5)):
            yield (b"," if i else b"") + orjson.dumps(rng.choice(_KEYS)) + b":"
            yield from _object(rng, depth + 1)
        yield b"}"
    elif kind < 8:
        yield b"["
        for i in range(rng.choice([0, 1, 2, 3, 4, 9])):
            yield b"," if i else b""
            yield from _object(rng, depth + 1)
        yield b"]"
    else:
        yield rng.choice(
            [*_SCALARS, orjson.dumps(rng.choice(_WORDS)), orjson.dumps(rng.gauss(0, 100)), b"%d" % rng.randrange(9)]
            if rng.random() < 0.97
            else _BROKEN
        )
