"""Wheels and sdists of the project and its client, and environments with a wheel and its locked dependencies alone."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients" / "python"
VERSIONS = ("3.11", "3.12", "3.13", "3.14")


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def pip_install(python: Path, *words: str | Path) -> None:
    """Install into another environment, which has no pip of its own."""
    pip = (sys.executable, "-W", "ignore", "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--quiet", "--no-warn-script-location", *words)


def locked(names: set[str], folder: Path) -> Path:
    """A requirements file with the pins of these packages in requirements/dev.lock, and their hashes."""
    text = (ROOT / "requirements" / "dev.lock").read_text(encoding="utf-8")
    pins = [
        pin
        for pin in re.findall(r"^[a-z].*?\\\n(?:    --hash.*\n)+", text, re.MULTILINE)
        if re.split("[=[]", pin)[0] in names
    ]
    assert len(pins) == len(names)
    path = folder / "requirements.txt"
    path.write_text("".join(pins), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Distribution:
    sdist: Path
    wheel: Path  # built from the sdist
    direct_wheel: Path  # built from the checkout


def build(project: Path, folder: Path) -> Distribution:
    hatchling = (sys.executable, "-m", "hatchling", "build", "--directory")
    run(*hatchling, folder / "direct", cwd=project)
    (sdist,), (direct,) = (folder / "direct").glob("*.tar.gz"), (folder / "direct").glob("*.whl")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = (path for path in folder.iterdir() if path.is_dir() and path.name != "direct")
    run(*hatchling, folder / "wheel", "--target", "wheel", cwd=source)
    (wheel,) = (folder / "wheel").glob("*.whl")
    return Distribution(sdist, wheel, direct)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    return build(ROOT, tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    return build(CLIENT, tmp_path_factory.mktemp("client"))


@dataclass(frozen=True)
class Environment:
    """A virtual environment; `folder` is where its commands run, outside the checkout."""

    version: str
    python: Path
    folder: Path

    def command(self, name: str) -> Path:
        return self.python.with_name(name)

    def run(self, name: str, *words: str | Path) -> str:
        return run(self.command(name), *words, cwd=self.folder).stdout


def make_environment(version: str, folder: Path) -> Environment:
    found = subprocess.run(
        ["sh", ROOT / "scripts" / "find_python.sh", version], capture_output=True, text=True, check=False
    )
    if found.returncode:
        pytest.skip(f"Python {version} is not installed, and `make pythons` could not install it")
    run(found.stdout.strip(), "-m", "venv", "--without-pip", folder / "venv")
    (folder / "work").mkdir()
    return Environment(version, folder / "venv" / "bin" / "python", folder / "work")


@pytest.fixture(scope="session", params=VERSIONS)
def environment(
    request: pytest.FixtureRequest, project: Distribution, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    """Nothing but the wheel and its locked dependencies."""
    made = make_environment(request.param, tmp_path_factory.mktemp(f"python{request.param}-"))
    base = ROOT / "requirements" / "base.lock"
    pip_install(made.python, "--require-hashes", "--only-binary", ":all:", "--requirement", base)
    pip_install(made.python, "--no-deps", "--no-index", project.wheel)
    return made
