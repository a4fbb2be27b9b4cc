"""The images of the offline bundle load into an engine that has not built them, and run without a network."""

import subprocess

import pytest

from scripts import bundle

pytestmark = [pytest.mark.slow, pytest.mark.containers]


def test_images_of_a_bundle_load_and_run(engine, monkeypatch, tmp_path):
    for name, value in engine.items():
        monkeypatch.setenv(name, value)
    names = [f"forward-pass-{target}:test" for target in bundle.IMAGES]

    def docker(*words):
        return subprocess.run(["docker", *words], env=engine, capture_output=True, text=True, check=True).stdout

    assert bundle.save_images(tmp_path, "test") == ""
    assert [path.name for path in tmp_path.iterdir()] == ["images.tar.gz"]
    docker("rmi", "--force", *names)
    try:
        docker("load", "--input", str(tmp_path / "images.tar.gz"))
        for name in names:
            assert "forward-pass, version" in docker(
                "run", "--rm", "--network", "none", name, "forward-pass", "--version"
            )
    finally:
        docker("rmi", "--force", *names)


def test_a_bundle_without_an_engine_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    assert bundle.save_images(tmp_path, "test") == "no Docker engine answers"
    assert list(tmp_path.iterdir()) == []
