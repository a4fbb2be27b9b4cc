"""Write the offline bundle: all that a machine without a network needs to install Forward Pass.

    python -m scripts.bundle --sbom-tool .venv-audit/bin/cyclonedx-py    # or: make bundle

The archive dist/forward-pass-VERSION-cp311-linux-x86_64.tar.gz is for the Python version and the platform that run this
program. It holds the locked dependencies and our wheels, images if a Docker engine answers, an SBOM (CycloneDX),
checksums and `install.sh`.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements" / "base.lock"
IMAGES = ("training", "service")
README = """\
Forward Pass {version}, offline bundle for {tag}

  sh install.sh /opt/forward-pass    installs into a new virtual environment, without a network
  wheels/                            the locked dependencies, Forward Pass, and its client
  requirements.lock                  versions and hashes of the dependencies
  sbom.json                          the packages that are installed (CycloneDX)
  SHA256SUMS                         checksums of all other files; install.sh verifies them
  {images}

To install the client alone: pip install --no-index wheels/forward_pass_client-{version}-py3-none-any.whl
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sbom-tool", type=Path, required=True, help="the program cyclonedx-py")
    parser.add_argument("--directory", type=Path, default=ROOT / "dist", help="where to write the archive")
    parser.add_argument("--no-images", action="store_true", help="leave the images out")
    options = parser.parse_args()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}-{sysconfig.get_platform()}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / f"forward-pass-{version}-{tag}"
        folder.mkdir()
        collect_wheels(folder)
        write_sbom(folder, options.sbom_tool.absolute())
        missing = "--no-images was given" if options.no_images else save_images(folder, version)
        shutil.copy(ROOT / "scripts" / "install_bundle.sh", folder / "install.sh")
        about = (
            f"no images: {missing}"
            if missing
            else "images.tar.gz                      images: docker load --input images.tar.gz"
        )
        (folder / "README").write_text(README.format(version=version, tag=tag, images=about), encoding="utf-8")
        write_checksums(folder)
        archive = pack(folder, options.directory)
    print(f"Wrote {archive}, {archive.stat().st_size / 1e6:.0f} MB" + (f" ({about})" if missing else ""))


def collect_wheels(folder: Path) -> None:
    """Download the locked dependencies, checked against their hashes, and build our two wheels."""
    wheels = folder / "wheels"
    shutil.copy(LOCK, folder / "requirements.lock")
    pip("download", "--require-hashes", "--only-binary", ":all:", "--dest", wheels, "--requirement", LOCK)
    for project in (ROOT, ROOT / "clients" / "python"):
        build = (sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", wheels)
        run(*build, cwd=project)


def write_sbom(folder: Path, tool: Path) -> None:
    """Write sbom.json from an environment that is installed from the bundle's wheels alone."""
    wheels = folder / "wheels"
    with tempfile.TemporaryDirectory() as shipped:
        venv.create(shipped)
        python = Path(shipped) / "bin" / "python"
        offline = ("--isolated", "--python", python, "install", "--no-index", "--find-links", wheels)
        pip(*offline, "--require-hashes", "--requirement", LOCK)
        pip(*offline, "--no-deps", *wheels.glob("forward_pass-*.whl"))
        command = (tool, "environment", shipped, "--pyproject", ROOT / "pyproject.toml", "--output-reproducible")
        run(*command, "--output-file", folder / "sbom.json")


def save_images(folder: Path, version: str) -> str:
    """Build both images and write images.tar.gz. Return the reason if no engine answers, else an empty string."""
    if not shutil.which("docker") or subprocess.run(["docker", "version"], capture_output=True, check=False).returncode:
        return "no Docker engine answers"
    names = [f"forward-pass-{target}:{version}" for target in IMAGES]
    for target, name in zip(IMAGES, names, strict=True):
        run("docker", "build", "--quiet", "--target", target, "--tag", name, ROOT)
    tar = folder / "images.tar"
    run("docker", "save", "--output", tar, *names)
    with tar.open("rb") as plain, gzip.GzipFile(f"{tar}.gz", "wb", compresslevel=6, mtime=0) as packed:
        shutil.copyfileobj(plain, packed)
    tar.unlink()
    return ""


def write_checksums(folder: Path) -> None:
    """Write SHA256SUMS, as `sha256sum --check` reads it."""
    lines = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.relative_to(folder)}\n")
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def pack(folder: Path, directory: Path) -> Path:
    """Write FOLDER.tar.gz, owned by root, and its checksum beside it."""

    def owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mode = 0o755 if member.isdir() or member.name.endswith(".sh") else 0o644
        return member

    directory.mkdir(parents=True, exist_ok=True)
    archive = directory / f"{folder.name}.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as file:  # wheels and images are compressed already
        file.add(folder, folder.name, filter=owned_by_root)
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    archive.with_name(f"{archive.name}.sha256").write_text(f"{digest}  {archive.name}\n", encoding="utf-8")
    return archive


def pip(*words: str | Path) -> None:
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", *words)


def run(*command: str | Path, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
