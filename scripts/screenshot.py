"""Take the pictures of README.md and docs/pages.md: pages of the running service, in headless Chromium.

python -m scripts.screenshot    # writes docs/images/models.png, model.png, traffic.png
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
WIDTH, HEIGHT = 1000, 640
# Path, colours and height of each picture.
PICTURES = {
    "models": ("/", "light", HEIGHT),
    "model": ("/models/penguins", "dark", HEIGHT),
    "traffic": ("/traffic", "light", HEIGHT),
}
_ROW = {"bill_length_mm": 44, "bill_depth_mm": 17.3, "flipper_length_mm": 197, "body_mass_g": 4000, "sex": "FEMALE"}


def take() -> None:
    """Train the examples, serve them, send predictions for some seconds, and write what Chromium shows."""
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
                _send_predictions(f"http://127.0.0.1:{port}/models/penguins/predict")
                _photograph(port)
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


def _send_predictions(url: str) -> None:
    """Send requests for about 20 s: the traffic is sampled every 5 s."""
    for i in range(400):
        rows = [_ROW | {"island": ("Biscoe", "Dream", "Torgersen")[i % 3]}] * (1 + i % 4)
        data = json.dumps({"instances": rows if i % 50 else []}).encode()
        try:
            urllib.request.urlopen(url, data, timeout=10).close()
        except urllib.error.HTTPError as e:
            e.close()  # 422, for the picture
        time.sleep(0.05)


def _photograph(port: int) -> None:
    # The pictures show the default port, whichever one was free.
    rules = f"--host-resolver-rules=MAP 127.0.0.1:8000 127.0.0.1:{port}"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", rules])
        for name, (path, scheme, height) in PICTURES.items():
            page = browser.new_page(viewport={"width": WIDTH, "height": height}, color_scheme=scheme)
            page.goto(f"http://127.0.0.1:8000{path}")
            page.wait_for_timeout(5000)  # the page of the traffic asks every 2 s
            page.screenshot(path=IMAGES / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    take()
    for name in PICTURES:
        print(f"docs/images/{name}.png: {(IMAGES / name).with_suffix('.png').stat().st_size / 1000:.0f} kB")
