"""The documentation site builds without a warning and loads nothing from another host."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MKDOCS = ROOT / ".venv-docs" / "bin" / "mkdocs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not MKDOCS.exists():
        pytest.skip("make docs has not installed MkDocs")
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "PATH": f"{MKDOCS.parent}:{os.environ['PATH']}", "NO_MKDOCS_2_WARNING": "1"}
    command = [MKDOCS, "build", "--quiet", "--strict", "--site-dir", folder]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


@pytest.mark.slow
def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    loaded = re.compile(r"(?:src=|<link [^>]*href=|url\(|@import )[\"']?(?:https?:)?//[^\"' )>]*")
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(pages) > 20
    assert [found for page in pages for found in loaded.findall(page.read_text(encoding="utf-8"))] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("training", ["training.train", "training.losses.regression.MSE", "training.optim.optimizers.SGD"]),
        ("training", ["training.engine.gradient_check.check_gradients", "training.optim.lr_schedulers.Cosine"]),
        ("networks", ["model_store.nn.layers.linear.Linear", "model_store.nn.sequential.Sequential"]),
        ("store", [f"model_store.registry.store.{name}" for name in ("open_store", "Store.load", "Version")]),
        (
            "store",
            [f"model_store.artifact.{name}" for name in ("model.Model", "npz.read", "npz.write", "npz.read_digest")],
        ),
        ("jobs", [f"training.pipeline.job.{name}" for name in ("load", "prepare", "train_and_evaluate", "run")]),
        ("client", ["forward_pass_client.Client", "forward_pass_client.Client.predict"]),
    ],
)
def test_the_reference_has_the_names_that_users_import(site: Path, page: str, names: list[str]) -> None:
    text = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
    assert [name for name in names if f'id="{name}"' not in text] == []


@pytest.mark.slow
def test_parameters_in_docstrings_are_lists(site: Path) -> None:
    text = (site / "reference" / "training.html").read_text(encoding="utf-8")
    assert re.search(r"<li><code>rng</code>: shuffles the samples", text)
    assert re.search(r"<code>label_smoothing</code>: ε; targets", text)
    assert "<code>Losses</code>" not in text


@pytest.mark.slow
def test_members_that_the_reference_selects_exist(site: Path) -> None:
    """MkDocs ignores names that are gone."""
    missing = []
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        html = (site / "reference" / f"{page.stem}.html").read_text(encoding="utf-8")
        selected = re.findall(r"^::: (\S+)\n    options:\n      members: \[(.*)\]", page.read_text(), re.MULTILINE)
        names = [f"{module}.{name}" for module, listed in selected for name in listed.split(", ")]
        missing += [name for name in names if f'id="{name}"' not in html]
    assert missing == []
