"""The contestants of the serving benchmark: how to start each one, what to send, and how to read its response."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import requires
from pathlib import Path
from typing import Any

PEERS = Path(__file__).parent / "peers" / "serving"
ROOT = PEERS.parents[2]


@dataclass(frozen=True)
class Setting:
    """How to start a service: the network as artifact and as ONNX, number of workers, port, folder to write to."""

    store: Path
    artifact: Path
    onnx: Path
    workers: int
    port: int
    folder: Path


@dataclass(frozen=True)
class Contestant:
    """A service: `command` starts it in `environment`, `body` makes a request, `answers` parses a response by row."""

    name: str
    says: str
    environment: Path
    command: Callable[[Setting], list[str]]
    packages: tuple[str, ...]
    path: str = "/predict"
    environ: Callable[[Setting], Mapping[str, str]] = lambda _: {}
    body: Callable[[list[list[float]]], dict[str, Any]] = lambda rows: {"instances": rows}
    answers: Callable[[dict[str, Any]], list[Any]] = lambda answer: answer["predictions"]
    folders: tuple[str, ...] = field(default=())  # of the project itself, which count as installed

    @property
    def missing(self) -> str:
        """Why it cannot take part; empty when it can."""
        if self.folders or (self.environment / ".installed").exists():
            return ""
        log = self.environment / "install.log"
        lines = log.read_text(encoding="utf-8").strip().splitlines() if log.exists() else []
        return lines[-1] if lines else f"{self.environment.name} is not there: make bench-serving installs it"

    def start(self, setting: Setting) -> list[str]:
        program, *words = self.command(setting)
        return [str(self.environment / "bin" / program), *words]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def requirements(name: str) -> tuple[str, ...]:
    lines = (PEERS / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line.partition("#")[0].strip() for line in lines)


def service_requirements() -> tuple[str, ...]:
    """The project's requirements without rich and threadpoolctl, which the service does not import."""
    needed = [line for line in requires("forward-pass") or [] if "extra ==" not in line]
    return tuple(line for line in needed if re.match(r"[\w-]+", line)[0] not in {"rich", "threadpoolctl"})  # type: ignore[index]


def _peer(name: str, says: str, command: Callable[[Setting], list[str]], *, env: str = "", **more: Any) -> Contestant:
    env = env or name
    return Contestant(name, says, ROOT / f".venv-peer-{env}", command, requirements(env), **more)


def _ours(setting: Setting) -> list[str]:
    words = ["serve", "--store", str(setting.store), "--port", str(setting.port), "--workers", str(setting.workers)]
    return [*words, "--quiet"]  # no peer writes a line a request


def _gunicorn(setting: Setting) -> list[str]:
    words = ["gunicorn", "--bind", f"127.0.0.1:{setting.port}", "--workers", str(setting.workers), "--threads", "4"]
    return [*words, "--no-control-socket", "naive_service:app"]


def _uvicorn(app: str) -> Callable[[Setting], list[str]]:
    words = ["uvicorn", app, "--no-access-log", "--log-level", "warning"]
    return lambda setting: [*words, "--port", str(setting.port), "--workers", str(setting.workers)]


def _granian(setting: Setting) -> list[str]:
    words = ["granian", "--interface", "asgi", "--port", str(setting.port), "--workers", str(setting.workers)]
    return [*words, "--loop", "uvloop", "--log-level", "warning", "starlette_service:app"]


def _bentoml(setting: Setting) -> list[str]:
    return ["bentoml", "serve", "bentoml_service:Predictor", "--host", "127.0.0.1", "--port", str(setting.port)]


def _bentoml_environ(setting: Setting) -> dict[str, str]:
    return {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(setting.folder / "bentoml")}


def _mlserver(setting: Setting) -> list[str]:
    """One worker: the HTTP process runs the network. More: additional processes do."""
    folder = setting.folder / "network"
    folder.mkdir(exist_ok=True)
    settings: dict[str, Any] = {"debug": False, "host": "127.0.0.1", "http_port": setting.port}
    settings |= {"grpc_port": free_port(), "metrics_port": free_port(), "metrics_dir": str(setting.folder / "metrics")}
    settings["parallel_workers"] = 0 if setting.workers == 1 else setting.workers
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    model = {"name": "network", "implementation": "mlserver_service.Runtime"}
    (folder / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    return ["mlserver", "start", str(folder)]


def _tensor(rows: list[list[float]]) -> dict[str, Any]:
    flat = [value for row in rows for value in row]
    return {"inputs": [{"name": "rows", "shape": [len(rows), len(rows[0])], "datatype": "FP32", "data": flat}]}


def _probabilities(answer: dict[str, Any]) -> list[Any]:
    """Our classifier returns a label and the probability of each label."""
    rows = answer["predictions"]
    return [list(row["probabilities"].values()) if isinstance(row, dict) else row for row in rows]


OURS = Contestant(
    "ours",
    "serve",
    Path(sys.executable).parent.parent,
    _ours,
    service_requirements(),
    environ=lambda setting: {"SERVE_CACHE_DIR": str(setting.folder / "cache")},
    answers=_probabilities,
    folders=("model_store", "service"),
)
NAIVE = _peer("naive", "Flask, List(List(Float)), gunicorn gthread", _gunicorn)
CONTESTANTS = [
    OURS,
    NAIVE,
    _peer("fastapi", "FastAPI, onnxruntime, uvicorn", _uvicorn("fastapi_service:app")),
    _peer(
        "starlette-uvicorn",
        "Starlette, orjson, onnxruntime, uvicorn",
        _uvicorn("starlette_service:app"),
        env="starlette",
    ),
    _peer("starlette-granian", "the same, granian", _granian, env="starlette"),
    _peer("litserve", "LitServe, onnxruntime", lambda _: ["python", "litserve_service.py"]),
    _peer("bentoml", "BentoML, onnxruntime", _bentoml, environ=_bentoml_environ, answers=lambda answer: answer),
    _peer(
        "mlserver",
        "MLServer, onnxruntime, V2 protocol",
        _mlserver,
        path="/v2/models/network/infer",
        environ=lambda _: {"PYTHONPATH": str(PEERS)},
        body=_tensor,
        answers=lambda answer: answer["outputs"][0]["data"],
    ),
]
