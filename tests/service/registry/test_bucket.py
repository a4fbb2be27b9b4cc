"""The workers of a service follow a bucket and keep serving while it is unreachable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_store.registry.store import open_store
from tests.model_store.s3 import running
from tests.service.conftest import price

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


def send(base: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    request = urllib.request.Request(base + path, None if body is None else json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as e:
        return e.code, json.load(e)


def eventually(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_workers_follow_a_bucket_and_keep_serving_while_it_is_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running() as s3:
        for name, value in s3.reset().items():
            monkeypatch.setenv(name, value)
        store = open_store(s3.url, tmp_path / "mine")
        store.publish("price", price())
        settings = {"SERVE_CACHE_DIR": str(tmp_path / "cache"), "SERVE_POLL_SECONDS": "0.2"}
        server = subprocess.Popen(
            [sys.executable, "-m", "service", "--store", s3.url, "--port", "0", "--workers", "2"],
            cwd=ROOT, env={**os.environ, **settings}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert server.stderr is not None
            assert s3.url in server.stderr.readline()
            base = server.stderr.readline().split()[-1].removesuffix("/predict")

            def served_versions() -> set[int]:
                """The versions that serve twenty requests, and so both workers."""
                answers = [send(base, "/predict", {"instances": [[3, 70.0]]}) for _ in range(20)]
                assert {status for status, _ in answers} == {200}
                return {answer["version"] for _, answer in answers}

            eventually(lambda: send(base, "/readyz")[0] == 200)
            assert served_versions() == {1}
            store.publish("price", price(1))
            eventually(lambda: served_versions() == {2})
            s3.away = True
            eventually(lambda: send(base, "/readyz")[1]["status"] == "degraded")
            assert served_versions() == {2}
            assert "SlowDown" in send(base, "/readyz")[1]["problems"][0]["problem"]
            s3.away = False
            store.publish("price", price(2))
            eventually(lambda: served_versions() == {3})
            assert sum(request.startswith("GET") and request.endswith("3.npz") for request in s3.requests) <= 4
        finally:
            server.terminate()
            server.communicate(timeout=30)
    assert server.returncode == 0
