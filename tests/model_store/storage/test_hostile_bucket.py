"""Buckets whose server does not mean well."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from model_store.storage import bucket as module
from model_store.storage.bucket import BucketStorage


class EndlessPages(BaseHTTPRequestHandler):
    """Lists a bucket as pages without an object: one every 20 ms, and so many that a test would notice."""

    protocol_version = "HTTP/1.1"
    pages = 0

    def do_GET(self) -> None:
        EndlessPages.pages += 1
        threading.Event().wait(0.02)
        more = "<IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>"
        if EndlessPages.pages % 200 == 0:
            more = "<IsTruncated>false</IsTruncated>"
        page = f"<ListBucketResult><Name>b</Name><Prefix></Prefix><KeyCount>0</KeyCount>{more}</ListBucketResult>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketStorage]:
    with ThreadingHTTPServer(("127.0.0.1", 0), EndlessPages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = {
            "ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "ACCESS_KEY_ID": "x",
            "SECRET_ACCESS_KEY": "x",
            "REGION": "r",
        }
        for name, value in settings.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setattr(module, "MAX_LISTING_SECONDS", 0.3)
        monkeypatch.setattr(module, "_user_pid", [])
        yield BucketStorage("s3://b", tmp_path / "cache")
        server.shutdown()


def test_a_listing_that_never_ends_is_an_error_and_sends_no_further_request(storage: BucketStorage) -> None:
    """A sync waited for it for ever, and `models gc`, too."""
    for list_keys in (lambda: storage.keys("*/*"), storage.abandoned_keys):
        with pytest.raises(TimeoutError, match=r"expected the list of the store within 0\.3 s, found no end"):
            list_keys()
        before = EndlessPages.pages
        assert before >= 1
        threading.Event().wait(0.5)
        assert EndlessPages.pages - before <= 1  # one may have been under way
