"""Take the picture of the README: the running service's own page, in headless Chromium.

python -m scripts.screenshot    # writes docs/images/service.png
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "images" / "service.png"
WIDTH, HEIGHT = 1200, 812


def take(picture: Path) -> None:
    """Train the examples, serve them, ask for a prediction on the page, and write what Chromium shows."""
    with tempfile.TemporaryDirectory() as folder:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        bin_folder = Path(sys.executable).parent
        environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "MODEL_STORE": f"{folder}/models"}
        subprocess.run(["sh", "examples/publish.sh"], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
        command = [bin_folder / "serve", "--port", str(port), "--quiet"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as service:
            try:
                _wait_until_ready(f"http://127.0.0.1:{port}/readyz")
                _photograph(port, picture)
            finally:
                service.terminate()


def _wait_until_ready(url: str) -> None:
    for _ in range(200):
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"{url}: not ready within 20 s")


def _photograph(port: int, picture: Path) -> None:
    # The picture shows the default port, whichever one was free.
    rules = f"--host-resolver-rules=MAP 127.0.0.1:8000 127.0.0.1:{port}"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", rules])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto("http://127.0.0.1:8000/docs")
        form = page.locator("form[data-model=penguins]")
        for _ in range(3):  # the first request of a page also opens a connection
            form.get_by_role("button", name="Predict").click()
            page.wait_for_timeout(300)
        form.locator(".result *").first.wait_for()
        form.evaluate("(form) => scrollTo(0, form.getBoundingClientRect().bottom + scrollY - innerHeight + 24)")
        page.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    take(PICTURE)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1000:.0f} kB")
