"""Draw the diagrams of docs/architecture.md as SVG.

    python -m scripts.diagrams    # writes docs/images/folders.svg, request.svg and row.svg

The same input gives the same bytes; a test compares the files with what this program draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

IMAGES = Path(__file__).parent.parent / "docs" / "images"

# Folders and top-level modules in the order of their imports: each imports only from those above it.
FOLDERS: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "training": (
        "train: from data to a model",
        [
            ("losses/", "losses and derivatives"),
            ("optim/", "optimizers, schedules"),
            ("config/", "the job file, its defaults"),
            ("data/", "readers, type inference, splits"),
            ("engine/", "training loop, checkpoints"),
            ("network/", "layers, output, loss of a job"),
            ("evaluation/", "metrics, diagnostics"),
            ("pipeline/", "the job, step by step"),
            ("sweep/", "searches of settings"),
            ("sklearn/", "estimators of scikit-learn"),
            ("cli/", "the command train"),
        ],
    ),
    "model_store": (
        "models: versions and stores",
        [
            ("nn/", "the network (NumPy alone)"),
            ("utils/", "atomic writes"),
            ("schema/", "columns, row parser"),
            ("tables/", "table files: CSV, Parquet, Excel"),
            ("artifact/", "the model file, .npz"),
            ("storage/", "a directory or a bucket"),
            ("evaluation/", "comparison of versions"),
            ("registry/", "versions, aliases, promotion"),
            ("export/", "ONNX and other platforms"),
            ("report/", "the HTML report"),
            ("batch/", "predictions of many files"),
            ("importing/", "models of other frameworks"),
            ("cli/", "the command models"),
        ],
    ),
    "service": (
        "serve: predictions over HTTP, gRPC",
        [
            ("http/", "bodies, headers, errors"),
            ("security/", "API keys and scopes"),
            ("telemetry/", "metrics, traces, access log"),
            ("validation/", "request bodies"),
            ("registry/", "the loaded models"),
            ("inference/", "forward passes, drift"),
            ("protocols/", "formats of other servers"),
            ("pages/", "what HTML pages show"),
            ("openapi/", "the OpenAPI document"),
            ("routes/", "Flask views"),
            ("server/", "gunicorn worker, fast path"),
            ("grpc/", "the same over gRPC"),
        ],
    ),
}

_STYLE = """
text { font: 14px system-ui, "Segoe UI", Roboto, "Liberation Sans", "DejaVu Sans", sans-serif; fill: #1b2030 }
.title { font-weight: 600; font-size: 16px } .name { font-weight: 600 } .quiet { fill: #5a6278; font-size: 13px }
.code { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 13px }
.box { fill: #fff; stroke: #c3cade } .strong { fill: #e9eeff; stroke: #3457d5 } .bad { fill: #fdecec; stroke: #c9494f }
.line { fill: none; stroke: #3457d5; stroke-width: 1.6; marker-end: url(#tip) } .dashed { stroke-dasharray: 5 4 }
"""


@dataclass
class Drawing:
    """Shapes on a canvas of `width` by `height` pixels."""

    width: int
    height: int
    label: str
    shapes: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> None:
        self.shapes.append(f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>')

    def box(self, x: float, y: float, width: float, height: float, kind: str = "box") -> None:
        self.shapes.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8" class="{kind}"/>')

    def step(self, x: float, y: float, width: float, lines: Sequence[str], kind: str = "box") -> None:
        """Draw a box of a name and, below it, a module and remarks."""
        self.box(x, y, width, 20 + 19 * len(lines), kind)
        for i, line in enumerate(lines):
            shown = "name" if i == 0 else "code" if line.endswith((".py", "/")) else "quiet"
            self.text(x + 12, y + 23 + 19 * i, line, shown)

    def line(self, *points: tuple[float, float], dashed: bool = False) -> None:
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        self.shapes.append(f'<path d="{path}" class="line{" dashed" if dashed else ""}"/>')

    def svg(self) -> str:
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" role="img" aria-label="{escape(self.label)}">\n'
            f"<style>{_STYLE}</style>\n"
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0 8 4 0 8z" fill="#3457d5"/></marker></defs>\n'
            f'<rect width="{self.width}" height="{self.height}" rx="10" fill="#fbfbfd"/>\n'
        )
        return head + "\n".join(self.shapes) + "\n</svg>\n"


def folders() -> Drawing:
    """The three packages, their folders, and the imports between packages."""
    drawing = Drawing(800, 640, "The packages training, model_store and service, and their folders")
    for i, (package, (job, rows)) in enumerate(FOLDERS.items()):
        x = 16 + 264 * i
        drawing.box(x, 16, 240, 62, "strong")
        drawing.text(x + 14, 42, f"{package}/", "title")
        drawing.text(x + 14, 64, job, "quiet")
        for j, (name, about) in enumerate(rows):
            y = 92 + 53 * j
            drawing.box(x, y, 240, 46)
            drawing.text(x + 12, y + 19, name, "code")
            drawing.text(x + 12, y + 37, about, "quiet")
    drawing.line((256, 47), (279, 47))
    drawing.line((544, 47), (521, 47))
    return drawing


def request() -> Drawing:
    """The way of a prediction through the service."""
    drawing = Drawing(800, 552, "The path of a request through the service")
    left, middle, right, wide = 16, 280, 544, 240
    drawing.step(left, 16, wide, ["1. Accept the connection", "server/event_worker.py", "one event loop per worker"])
    drawing.step(left, 123, wide, ["2. Read the request", "server/request_reader.py", "complete before all else"])
    drawing.step(left, 230, wide, ["3. Admit or shed", "server/admission.py", "limits on connections and bytes"])
    drawing.step(left, 346, wide, ["503 and Retry-After", "server/error_responses.py"], "bad")
    drawing.step(middle, 16, wide, ["A version not in memory", "server/blocking_executor.py", "a thread loads it"])
    drawing.step(middle, 123, wide, ["4a. Fast path", "server/fast_path.py", "plain JSON, batched"], "strong")
    drawing.step(middle, 230, wide, ["4b. All other requests", "server/wsgi_bridge.py", "routes/", "Flask"], "strong")
    drawing.step(right, 16, wide, ["5. Check key and scope", "security/api_keys.py", "401, 403"])
    drawing.step(right, 123, wide, ["6. Parse and validate", "validation/", "422 with every error and a fix"])
    drawing.step(right, 230, wide, ["7. Find the version", "registry/registry.py", "one snapshot per request"])
    drawing.step(right, 337, wide, ["8. Forward pass", "inference/runner.py", "shared by waiting requests"])
    drawing.step(right, 444, wide, ["9. Drift, range warnings", "inference/drift.py", "inference/range_warnings.py"])
    drawing.step(middle, 444, wide, ["10. Write the response", "http/responses.py", "as fast as the client reads"])
    drawing.step(left, 444, wide, ["11. Count, trace and log", "telemetry/", "after the response is sent"])
    drawing.line((136, 93), (136, 123))
    drawing.line((136, 200), (136, 230))
    drawing.line((136, 307), (136, 346), dashed=True)
    drawing.line((256, 258), (268, 258), (268, 162), (280, 162))
    drawing.line((256, 278), (280, 278))
    drawing.line((400, 123), (400, 93), dashed=True)
    drawing.line((520, 278), (532, 278), (532, 62), (544, 62))
    drawing.line((520, 162), (532, 162), (532, 54), (544, 54))
    for top in (93, 200, 307, 414):
        drawing.line((664, top), (664, top + 30))
    drawing.line((544, 482), (520, 482))
    drawing.line((280, 482), (256, 482))
    return drawing


def row() -> Drawing:
    """Draw the path of a row through training and through serving."""
    drawing = Drawing(800, 610, "The path of a row in training and in serving")
    wide, xs = 240, (16, 280, 544)
    drawing.text(16, 34, "In training", "title")
    drawing.step(xs[0], 48, wide, ["1. Read the table", "training/data/readers.py", "CSV, Parquet, .npz, IDX"])
    drawing.step(xs[1], 48, wide, ["2. Guess the column kinds", "data/type_inference.py", "number, category, array"])
    drawing.step(xs[2], 48, wide, ["3. Split", "training/data/splitting.py", "training, validation, test"])
    drawing.step(xs[2], 155, wide, ["4. Fit the preprocessing", "training/data/fitting/", "on the training rows alone"])
    drawing.step(xs[1], 155, wide, ["5. Encode", "model_store/schema/", "row to numbers"], "strong")
    drawing.step(xs[0], 155, wide, ["6. Train", "training/engine/loop.py", "early stopping on validation"])
    drawing.step(xs[0], 262, wide, ["7. Evaluate", "training/evaluation/", "on the test rows"])
    drawing.step(xs[1], 262, wide, ["8. Publish", "model_store/artifact/", "weights and signature, one file"], "strong")
    drawing.text(16, 388, "In serving", "title")
    drawing.step(xs[1], 402, wide, ["1. Load the version", "service/registry/loader.py", "verify, check golden rows"])
    drawing.step(xs[2], 402, wide, ["2. Parse the row", "schema/row_parser.py", "all errors at once"])
    drawing.step(xs[2], 509, wide, ["3. Encode", "model_store/schema/", "the same code as in training"], "strong")
    drawing.step(xs[1], 509, wide, ["4. Predict and decode", "model_store/nn/", "label, probabilities, numbers"])
    for x in xs[:2]:
        drawing.line((x + wide, 86), (x + wide + 24, 86))
    drawing.line((664, 125), (664, 155))
    drawing.line((544, 193), (520, 193))
    drawing.line((280, 193), (256, 193))
    drawing.line((136, 232), (136, 262))
    drawing.line((256, 300), (280, 300))
    drawing.line((400, 339), (400, 402))
    drawing.line((520, 440), (544, 440))
    drawing.line((664, 479), (664, 509))
    drawing.line((544, 547), (520, 547))
    drawing.text(16, 432, "The signature holds what was", "quiet")
    drawing.text(16, 451, "learned of each column: medians,", "quiet")
    drawing.text(16, 470, "categories, means, deviations.", "quiet")
    return drawing


DRAWINGS: dict[str, Callable[[], Drawing]] = {"folders.svg": folders, "request.svg": request, "row.svg": row}


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    for name, draw in DRAWINGS.items():
        (IMAGES / name).write_text(draw().svg(), encoding="utf-8")
        print(f"docs/images/{name}")


if __name__ == "__main__":
    main()
