"""Wheel and sdist hold the files of git that belong to them, and nothing else."""

from __future__ import annotations

import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.packaging.conftest import CLIENT, ROOT, Distribution

pytestmark = pytest.mark.slow

PACKAGES = ("training/", "model_store/", "service/", "forward_pass.py", "forward_pass_client/")


def metadata(folder: Path) -> dict[str, object]:
    found: dict[str, object] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def tracked(folder: Path) -> set[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: which files belong to the project is unknown")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=folder, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.split("\0") if name and (folder / name).is_file()}


def in_wheel(wheel: Path) -> set[str]:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    return {name for name in names if ".dist-info/" not in name}


def in_sdist(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as archive:
        return {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}


def test_the_wheel_holds_the_packages_and_nothing_else(project: Distribution) -> None:
    names = {name.removeprefix("clients/python/") for name in tracked(ROOT)}
    expected = {name for name in names if name.startswith(PACKAGES)}
    assert in_wheel(project.wheel) == expected
    assert in_wheel(project.direct_wheel) == expected
    assert {
        f"{package}/py.typed" for package in ("training", "model_store", "service", "forward_pass_client")
    } <= expected
    assert "service/templates/docs.html" in expected


def test_the_sdist_holds_the_packages_the_client_and_the_examples(project: Distribution) -> None:
    folders = ("training/", "model_store/", "service/", "clients/", "examples/")
    files = {"forward_pass.py", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", ".gitignore"}
    expected = {name for name in tracked(ROOT) if name.startswith(folders) or name in files}
    assert in_sdist(project.sdist) == {*expected, "PKG-INFO"}


def test_wheel_and_sdist_of_the_client_hold_one_package(client: Distribution) -> None:
    expected = {name for name in tracked(CLIENT) if name.startswith("forward_pass_client/")}
    assert len(expected) >= 5
    assert in_wheel(client.wheel) == in_wheel(client.direct_wheel) == expected
    assert in_sdist(client.sdist) == {*tracked(CLIENT), ".gitignore", "PKG-INFO"}


def test_the_client_has_the_version_and_licence_of_the_project() -> None:
    ours, its = metadata(ROOT), metadata(CLIENT)
    assert its["version"] == ours["version"]
    assert its["requires-python"] == ours["requires-python"]
    assert its["dependencies"] == []
    assert (CLIENT / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
