"""Imports go along the arrows only: training -> model_store <- service; model_store/nn imports NumPy only."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("training", "model_store", "service")
ALLOWED_PACKAGES = {"training": {"model_store"}, "model_store": set(), "service": {"model_store"}}
# The imports that are allowed between the subpackages (or top-level modules) of a package, without cycles.
_LEAVES = {"config", "http", "security", "telemetry", "validation"}
_NETWORK = {"errors", "nn", "utils"}
SUBPACKAGES: dict[str, dict[str, set[str]]] = {
    "service": {
        **{leaf: set() for leaf in _LEAVES},
        "registry": _LEAVES,
        "inference": {*_LEAVES, "registry"},
        "protocols": {"http", "registry", "validation"},
        "openapi": {"http", "protocols", "registry", "validation"},
        "pages": {*_LEAVES, "registry", "inference", "protocols"},
        "routes": {*_LEAVES, "registry", "inference", "protocols", "openapi", "pages"},
        "server": {*_LEAVES, "registry", "inference", "protocols"},
        "grpc": {*_LEAVES, "registry", "inference", "protocols", "server"},
        "app": {*_LEAVES, "registry", "inference", "protocols", "pages", "routes", "server", "grpc"},
        "key_commands": {"security"},
        "cli": {"app", "config", "key_commands", "security", "server", "telemetry"},
        "__main__": {"cli"},
    },
    "training": {
        "errors": set(),
        "tracer": set(),
        "encoded_rows": set(),
        "stored_arrays": set(),
        "available_memory": set(),
        "optim": {"errors", "stored_arrays", "tracer"},
        "losses": {"errors"},
        "config": {"errors", "losses", "optim"},
        "data": {"available_memory", "config", "errors", "stored_arrays"},
        "engine": {"config", "encoded_rows", "errors", "losses", "optim", "stored_arrays", "tracer"},
        "network": {"config", "engine", "errors", "losses"},
        "evaluation": {"config", "encoded_rows"},
        "pipeline": {
            "available_memory",
            "config",
            "data",
            "encoded_rows",
            "engine",
            "errors",
            "evaluation",
            "losses",
            "network",
            "optim",
        },
        "sweep": {"config", "data", "encoded_rows", "engine", "errors", "evaluation", "pipeline"},
        "cli": {"config", "data", "engine", "errors", "network", "pipeline", "sweep"},
        "sklearn": {"config", "data", "engine", "errors", "pipeline"},
        "__init__": {"engine", "losses", "optim"},
        "__main__": {"cli"},
    },
    "model_store": {
        "similar_names": set(),
        "errors": {"similar_names"},
        "utils": {"errors", "similar_names"},
        "nn": set(),
        "schema": _NETWORK,
        "tables": {"errors", "schema", "utils"},
        "artifact": {*_NETWORK, "schema"},
        "storage": {*_NETWORK, "schema", "artifact"},
        "evaluation": {*_NETWORK, "schema", "artifact"},
        "registry": {*_NETWORK, "schema", "artifact", "storage", "evaluation"},
        "report": {*_NETWORK, "schema", "artifact", "evaluation", "export"},
        "batch": {*_NETWORK, "schema", "tables", "artifact", "storage"},
        "export": {*_NETWORK, "schema", "artifact"},
        "cli": {
            *_NETWORK,
            "schema",
            "tables",
            "artifact",
            "storage",
            "evaluation",
            "registry",
            "report",
            "batch",
            "export",
            "importing",
        },
        "publishing": {*_NETWORK, "schema", "artifact", "registry", "report"},
        "importing": {*_NETWORK, "schema", "artifact", "publishing"},
        "__init__": {"publishing", "registry"},
        "__main__": {"cli"},
    },
}


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, relative imports resolved."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            yield (base := ".".join((*above, *filter(None, [node.module]))))
            if base in PACKAGES:  # `from service import config`
                yield from (f"{base}.{alias.name}" for alias in node.names)


def top(name: str) -> str:
    return name.partition(".")[0]


def imported(folder: str) -> set[tuple[str, str]]:
    """(file, imported module) of a whole folder; empty would mean that the walk is broken."""
    found = {
        (str(path.relative_to(ROOT)), name) for path in sorted((ROOT / folder).rglob("*.py")) for name in imports(path)
    }
    assert found, folder
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_along_the_arrows(package):
    forbidden = set(PACKAGES) - ALLOWED_PACKAGES[package] - {package}
    assert [pair for pair in imported(package) if top(pair[1]) in forbidden] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_subpackages_import_only_along_the_arrows(package: str) -> None:
    allowed = SUBPACKAGES[package]
    wrong = set()
    for file, name in imported(package):
        inside, (top_level, _, rest) = file.split("/")[1].removesuffix(".py"), name.partition(".")
        target = rest.partition(".")[0]
        if top_level == package and target and target != inside and target not in allowed[inside]:
            wrong.add(f"{file} imports {name}")
    assert wrong == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_the_allowed_arrows_form_no_cycle(package: str) -> None:
    TopologicalSorter(SUBPACKAGES[package]).prepare()  # raises CycleError


def test_the_network_imports_only_numpy_and_itself():
    def welcome(name: str) -> bool:
        return top(name) in {"numpy", *sys.stdlib_module_names} or f"{name}.".startswith("model_store.nn.")

    assert [pair for pair in imported("model_store/nn") if not welcome(pair[1])] == []


def test_the_formats_of_imported_models_import_nothing_of_each_other() -> None:
    formats = ("onnx", "sklearn", "keras_file", "pytorch_weights")
    for own in formats:
        others = tuple(f"model_store.importing.{name}" for name in formats if name != own)
        pairs = [pair for pair in imported("model_store/importing") if own in Path(pair[0]).with_suffix("").parts]
        assert pairs, own
        assert [pair for pair in pairs if pair[1].startswith(others)] == []


def test_the_client_imports_only_the_standard_library_numpy_and_itself() -> None:
    allowed = {"forward_pass_client", "numpy", *sys.stdlib_module_names}
    assert [pair for pair in imported("clients/python/forward_pass_client") if top(pair[1]) not in allowed] == []


def test_only_the_command_models_imports_the_client() -> None:
    found = {file for package in PACKAGES for file, name in imported(package) if top(name) == "forward_pass_client"}
    assert found == {"model_store/cli/predict/predictor.py"}


def test_the_client_sends_rows_without_numpy() -> None:
    code = "import sys, forward_pass_client; print({'numpy', 'model_store'} & set(sys.modules))"
    home = ROOT / "clients" / "python"
    found = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_the_protocols_import_no_web_framework() -> None:
    """Codecs take bytes and headers, so that the fast path and Flask's views can share them."""
    frameworks = {"flask", "werkzeug", "gunicorn"}
    assert [pair for pair in imported("service/protocols") if top(pair[1]) in frameworks] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_imports_the_tests(package):
    assert [pair for pair in imported(package) if top(pair[1]) in {"tests", "benchmarks"}] == []


@pytest.mark.parametrize(
    ("command", "seldom"),
    [
        ("training", {"rich.progress", "optuna", "sklearn", "mpi4py", "PIL"}),
        ("model_store", {"numpy.random", "onnx", "keras", "h5py", "cryptography", "training", "forward_pass_client"}),
    ],
)
def test_a_command_starts_without_what_it_seldom_needs(command: str, seldom: set[str]) -> None:
    """For example, its help does not wait for the charts of reports."""
    seldom |= {"model_store.report", "obstore", "pandas", "polars", "pyarrow", "dask", "model_store.importing"}
    code = f"import sys, {command}.cli.main; print({seldom} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_the_service_starts_without_what_it_seldom_needs():
    """Each costs time at every start, or memory in every process."""
    seldom = {"rich", "cryptography", "numpy.random", "obstore", "opentelemetry", "grpc", "google.protobuf", "training"}
    code = f"import sys, forward_pass, service.cli, service.server.event_worker; print({seldom} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_relative_imports_are_seen(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file = tmp_path / "service" / "routes" / "predict.py"
    file.parent.mkdir(parents=True)
    file.write_text("from . import health\nfrom ...training import trainer\nimport numpy.linalg as la\n")
    assert list(imports(file)) == ["service.routes", "training", "training.trainer", "numpy.linalg"]
