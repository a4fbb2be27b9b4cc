"""The wheel works on every supported Python, in an environment that cannot import the checkout."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from model_store.artifact.manifest import PRODUCER
from tests.packaging.conftest import (
    CLIENT,
    ROOT,
    VERSIONS,
    Distribution,
    Environment,
    locked,
    make_environment,
    pip_install,
    run,
)

pytestmark = pytest.mark.slow

PYTEST = {"pytest", "pluggy", "iniconfig", "packaging", "pygments"}
HYPOTHESIS = {"hypothesis", "sortedcontainers"}
# Those that need no package beyond the wheel's and these.
LIBRARY_TESTS = (
    "model_store/nn",
    "model_store/schema",
    "model_store/artifact",
    "training/optim",
    "training/losses",
)
MIB = 2**20


def test_all_commands_start(environment: Environment) -> None:
    name, version = PRODUCER.split()
    for words in (["forward-pass"], ["train", "xor.toml"], ["models"], ["serve"]):
        assert environment.run(*words, "--version") == f"{name}, version {version}\n"
    for command in ("train", "models", "serve"):
        shown = environment.run("forward-pass", command, "--help").replace("forward-pass ", "")
        assert shown == environment.run(command, "--help")


def test_a_table_is_trained_served_and_called(environment: Environment) -> None:
    folder = environment.folder / "penguins"
    folder.mkdir()
    shutil.copy(ROOT / "examples" / "penguins.csv", folder / "birds.csv")
    here = Environment(environment.version, environment.python, folder)
    here.run("forward-pass", "train", "init", "birds.csv", "--target", "species")
    here.run("forward-pass", "train", "birds.toml", "-q", "--set", "train.epochs=5")
    row = {
        "island": "Dream",
        "bill_length_mm": 49.5,
        "bill_depth_mm": 19.0,
        "flipper_length_mm": 200,
        "body_mass_g": 3800,
        "sex": "MALE",
    }
    expected = json.loads(here.run("forward-pass", "models", "predict", "birds", "--row", json.dumps(row), "--json"))
    command = [here.command("forward-pass"), "serve", "--port", "0", "--workers", "1"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            url = next(found[1] for line in server.stderr if (found := re.search(r"pages +(http://\S+)/", line)))
            code = f"from forward_pass_client import Client; print(Client({url!r}).predict('birds', [{row!r}]))"
            called = here.run("python", "-c", code)
            with urllib.request.urlopen(f"{url}/docs", timeout=10) as page:
                assert b"birds" in page.read()
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0
            server.stderr.read()
    assert called.strip() == str(expected["predictions"])


def test_types_are_checked_where_the_packages_are_imported(environment: Environment, tmp_path: Path) -> None:
    """mypy reads the annotations of an installed package only if it has py.typed."""
    program = tmp_path / "program.py"
    program.write_text(
        "import numpy as np\n"
        "from forward_pass_client import Client\n"
        "from model_store.nn import Linear, Sequential, Tanh\n"
        "from service.config import Settings\n"
        "from training import MSE, SGD, train\n"
        "\n"
        "network = Sequential([Linear(2, 3), Tanh()])\n"
        "errors: list[float] = train(network, np.zeros((4, 2)), np.zeros((4, 3)), MSE(), SGD(network), 3)\n"
        "reveal_type(network)\n"
        "reveal_type(Settings.from_environ({}).port)\n"
        "reveal_type(Client('http://127.0.0.1:8000').models())\n"
        "Linear('2', 3)\n"
    )
    target = ("--python-executable", environment.python, "--python-version", environment.version)
    mypy = (sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", *target, program)
    done = subprocess.run(mypy, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = [line.partition(".py:")[2] for line in done.stdout.splitlines()]
    assert found == [
        '9: note: Revealed type is "model_store.nn.sequential.Sequential"',
        '10: note: Revealed type is "int"',
        '11: note: Revealed type is "list[dict[str, Any]]"',
        '12: error: Argument 1 to "Linear" has incompatible type "str"; expected "int"  [arg-type]',
        "",
    ], done.stdout + done.stderr


def test_the_tests_of_the_library_pass(environment: Environment, tmp_path: Path) -> None:
    """With the tests copied to a folder of their own, so that they import the wheel."""
    pip_install(
        environment.python, "--no-deps", "--require-hashes", "--requirement", locked(PYTEST | HYPOTHESIS, tmp_path)
    )
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("tests", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "mnist"))
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)  # pytest reads pytest.ini
    shutil.copytree(CLIENT / "tests", tmp_path / "client_tests", ignore=ignored)
    settings = "[pytest]\npythonpath = .\naddopts = --import-mode=importlib --strict-markers\nmarkers =\n  slow: slow\n"
    (tmp_path / "pytest.ini").write_text(settings)
    needs_pillow = "tests/model_store/schema/columns/test_image_decoding.py"
    names = [*(f"tests/{name}" for name in LIBRARY_TESTS), "client_tests", f"--ignore={needs_pillow}"]
    pytest_run = (environment.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *names)
    done = run(*pytest_run, cwd=tmp_path)
    (passed,) = re.findall(r"^(\d+) passed", done.stdout, re.MULTILINE)
    assert int(passed) > 500
    code = "import training, model_store, service, forward_pass_client as c; print(training.__file__, c.__file__)"
    assert str(ROOT) not in run(environment.python, "-c", code, cwd=tmp_path).stdout


def test_the_installed_size_stays_small(environment: Environment) -> None:
    """Without bytecode, which is written when a module is imported; README states the size."""
    folder = environment.python.parents[1]
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    assert sum(path.stat().st_size for path in files if path.suffix != ".pyc") < 125 * MIB


@pytest.mark.parametrize("version", VERSIONS)
def test_the_client_alone_needs_nothing_else(version: str, client: Distribution, tmp_path: Path) -> None:
    made = make_environment(version, tmp_path)
    pip_install(made.python, "--no-index", client.wheel)
    made.run("python", "-c", "from forward_pass_client import Client; Client('http://127.0.0.1:8000').close()")
    listed = made.run("python", "-c", "import importlib.metadata as m; print(*(d.name for d in m.distributions()))")
    assert listed.split() == ["forward-pass-client"]
    (made.folder / "service.py").write_text("mine = True\n")  # a module of the caller's own
    made.run("python", "-c", "import service, forward_pass_client; assert service.mine")
