"""The offline bundle installs, trains and serves in a network namespace that has nothing but loopback."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT, run

pytestmark = pytest.mark.slow

SBOM_TOOL = ROOT / ".venv-audit" / "bin" / "cyclonedx-py"

# A new network namespace has loopback alone, and that is down: raise it as `ip link set lo up` does, without iproute2.
OFFLINE = """
import fcntl, re, socket, struct, subprocess, sys, urllib.error, urllib.request
from pathlib import Path

interfaces = re.findall(r"^ *(\\w+):", Path("/proc/net/dev").read_text(), re.MULTILINE)
assert interfaces == ["lo"], interfaces
assert Path("/proc/net/route").read_text().splitlines()[1:] == []  # below the title: no route leads out
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP

def run(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout

print(run("sh", sys.argv[1] + "/install.sh", "installed"))
bin = Path("installed/bin").resolve()
Path("xor.csv").write_text("a,b,c\\n" + "0,0,0\\n0,1,1\\n1,0,1\\n1,1,0\\n" * 20)
run(bin / "forward-pass", "train", "init", "xor.csv", "--target", "c")
run(bin / "forward-pass", "train", "xor.toml", "-q", "--set", "train.epochs=3")
serve = [bin / "forward-pass", "serve", "--port", "0", "--workers", "1"]
with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True) as server:
    url = next(found[1] for line in server.stderr if (found := re.search(r"pages +(http://\\S+)/", line)))
    code = f"from forward_pass_client import Client; print(Client({url!r}).predict('xor', [[0, 1]]))"
    print(run(bin / "python", "-c", code))
    server.terminate()
    server.stderr.read()
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked bundle."""
    if not SBOM_TOOL.exists():
        pytest.skip("make audit has not installed cyclonedx-py, which writes the list of packages")
    folder = tmp_path_factory.mktemp("bundle")
    command = (sys.executable, "-m", "scripts.bundle", "--no-images", "--sbom-tool", SBOM_TOOL, "--directory", folder)
    assert "no images: --no-images was given" in run(*command, cwd=ROOT).stdout
    (archive,) = folder.glob("*.tar.gz")
    run("sha256sum", "--check", "--strict", f"{archive.name}.sha256", cwd=folder)
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    assert archive.name == f"{unpacked.name}.tar.gz"
    return unpacked


def without_network(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    unshare = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare cannot make a network namespace here; it needs root or user namespaces")
    return run(*unshare, *command, cwd=cwd)


def test_it_installs_trains_and_serves_without_a_network(bundle: Path, tmp_path: Path) -> None:
    done = without_network(sys.executable, "-c", OFFLINE, bundle, cwd=tmp_path)
    installed, called = done.stdout.split("\n\n")[:2]
    assert "forward-pass, version" in installed
    assert f"to uninstall, remove {tmp_path / 'installed'}" in installed
    assert called.startswith("[")


def test_the_checksums_cover_every_file(bundle: Path) -> None:
    lines = (bundle / "SHA256SUMS").read_text().splitlines()
    found = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = {str(path.relative_to(bundle)): path for path in bundle.rglob("*") if path.is_file()}
    assert found == {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if name != "SHA256SUMS"
    }
    assert {"install.sh", "sbom.json", "requirements.lock", "README"} <= found.keys()


def test_the_sbom_lists_the_wheels(bundle: Path) -> None:
    sbom = json.loads((bundle / "sbom.json").read_text())
    listed = {each["name"].lower().replace("-", "_").replace(".", "_") for each in sbom["components"]}
    wheels = {path.name.partition("-")[0].lower() for path in (bundle / "wheels").glob("*.whl")}
    assert wheels - listed <= {"forward_pass", "forward_pass_client"}  # the subject of the list, and a part of it
    assert listed - wheels == set()


@pytest.mark.parametrize(
    ("damage", "message"),
    [("wheels/click-*.whl", "FAILED"), ("requirements.lock", "FAILED"), ("README", "No such file")],
)
def test_a_damaged_bundle_installs_nothing(bundle: Path, tmp_path: Path, damage: str, message: str) -> None:
    copy = tmp_path / bundle.name
    shutil.copytree(bundle, copy)
    (path,) = copy.glob(damage)
    if damage == "README":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes() + b"\n")
    done = subprocess.run(["sh", copy / "install.sh", tmp_path / "x"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["-h"], 0), ([], 2), (["a", "b"], 2)])
def test_install_prints_its_usage(arguments: list[str], status: int, tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "install_bundle.sh"
    done = subprocess.run(["sh", script, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == status
    assert (done.stderr if status else done.stdout).startswith("usage: sh install.sh TARGET")
    assert not list(tmp_path.iterdir())


def test_another_python_and_an_existing_target_are_refused(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho cp310\n")
    other.chmod(0o755)
    command = ["sh", bundle / "install.sh"]
    environ = {**os.environ, "PYTHON": str(other)}
    wrong = subprocess.run([*command, tmp_path / "x"], env=environ, capture_output=True, text=True, check=False)
    tag = f"cp3{sys.version_info.minor}"
    assert (wrong.returncode, wrong.stderr) == (
        2,
        f"{other}: expected Python {tag}, found cp310; set PYTHON to an interpreter of that version\n",
    )
    taken = subprocess.run([*command, tmp_path], capture_output=True, text=True, check=False)
    assert taken.returncode == 2
    assert f"{tmp_path}: expected a folder that does not exist yet, found one" in taken.stderr
    assert not (tmp_path / "x").exists()
