"""Large uploads: small predictions are served while attackers keep fresh uploads just under the limit of waiting input.

Each upload is closed before it counts as slow, so that none is shed for that. Whatever else arrives exceeds the limit.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.stress.cases import sized
from tests.stress.clients import Client, DroppedError
from tests.stress.trial import Control, TrialResult, running_service

MIN_SERVED_PERCENT = 95
GOOD = sized("/models/price/predict", b'{"instances": [' + b", ".join([b"[3, 80.25]"] * 80) + b"]}")
UPLOADS = 8
UPLOAD_SECONDS = 0.8  # a slow upload, which is shed first, takes a second
LOW_LIMITS = {"SERVE_MAX_BODY_BYTES": str(1 << 20), "SERVE_MAX_INPUT_BYTES": str(4 << 20)}  # filled in an instant


def trial(*, short: bool = False) -> TrialResult:
    """Send 2,000 small predictions at the default limits; 300 at low limits in the short form."""
    count = 300 if short else 2000
    statuses = run_uploads(count, LOW_LIMITS if short else {})
    result = TrialResult("large uploads", tried=count)
    result.measurements["served"] = f"{percent(statuses):.1f} % of at least {MIN_SERVED_PERCENT} %"
    if percent(statuses) < MIN_SERVED_PERCENT:
        result.record_loss(f"not served: {dict(statuses)}", count - statuses[200])
    return result


def controls() -> Iterator[Control]:
    share = percent(run_uploads(300, LOW_LIMITS, without="share of the input limit"))
    yield Control("without a share of the input limit", share < MIN_SERVED_PERCENT, f"{share:.0f} % served")


def percent(statuses: Counter[object]) -> float:
    return 100 * statuses[200] / statuses.total()


def run_uploads(count: int, limits: dict[str, str], without: str = "") -> Counter[object]:
    """Return the statuses of `count` small predictions, every second on a new connection."""
    limit = int(limits.get("SERVE_MAX_INPUT_BYTES", 32 << 20))
    statuses: Counter[object] = Counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(Path(folder), without=without, SERVE_WORKERS="1", **limits) as server,
        uploading(server.port, limit),
    ):
        kept = Client(server.port)
        for number in range(count):
            client = kept if number % 2 else Client(server.port)
            try:
                statuses[client.send(GOOD)[0]] += 1
            except (DroppedError, OSError) as e:
                statuses[str(e)] += 1
            if client is not kept:
                client.close()
        kept.close()
    return statuses


@contextmanager
def uploading(port: int, limit: int) -> Iterator[None]:
    """Keep the sum of unfinished uploads under `limit` by less than one small request."""
    request = sized("/models/price/predict", b" " * ((limit - 400) // UPLOADS))
    head = 2 * (request.index(b"\r\n\r\n") + 4)  # counts twice
    request = sized("/models/price/predict", b" " * ((limit - 400) // UPLOADS - head))[:-1]
    done = threading.Event()

    def upload() -> None:
        while not done.is_set():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
                end = time.monotonic() + UPLOAD_SECONDS
                sock.sendall(request)
                sock.settimeout(max(0.01, end - time.monotonic()))
                sock.recv(1)  # until it is shed, or would count as slow

    threads = [threading.Thread(target=upload) for _ in range(UPLOADS)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.5)
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
