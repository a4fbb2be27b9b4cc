"""What the documents say can be done can be done, and what they point to is there."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from model_store.registry.store import open_store
from service.app import create_app
from service.config import Settings
from training.pipeline import job

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("examples/*.md")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one_and_to_a_heading_in_it(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", document.read_text(encoding="utf-8"))
    missing = [
        f"{file}#{heading}"
        for file, heading in links
        if "://" not in file
        for location in [document.parent / file if file else document]
        if not location.exists() or (heading and heading not in headings(location))
    ]
    assert missing == []


def headings(document: Path) -> set[str]:
    """What a link calls the headings: words in lower case with hyphens between, marks left out."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    }


@pytest.mark.parametrize("document", [ROOT / "README.md", ROOT / "docs" / "mathematics.md"], ids=lambda path: path.name)
def test_programs_in_the_documents_run(document: Path) -> None:
    programs = re.findall(r"```python\n(import numpy.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)
    assert programs
    for program in programs:
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, cwd=ROOT)


def test_the_readmes_first_screen_trains_serves_and_calls_as_printed(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    trained = job.run(job.load(ROOT / "examples" / "penguins.toml"), open_store(str(tmp_path)))
    accuracy = re.search(r"Accuracy ([\d.]+)%", readme)
    assert accuracy is not None
    # Another processor rounds differently, and may get another row or two right.
    assert 100 * trained.metrics["accuracy"] == pytest.approx(float(accuracy[1]), abs=3)

    called = re.search(r"\$ (curl .*?)\n(\{\"model\".*?\})\n```", readme, re.DOTALL)
    assert called is not None
    *_, body = shlex.split(called[1])
    client = create_app(Settings(store=str(tmp_path), cache_dir=str(tmp_path / "cache"), poll_seconds=0)).test_client()
    answer = client.post("/predict", data=body).get_json()
    printed = json.loads(called[2].replace("\n", ""))
    assert answer["predictions"][0]["label"] == printed["predictions"][0]["label"]
    assert answer["predictions"][0]["probabilities"] == pytest.approx(
        printed["predictions"][0]["probabilities"], abs=1e-3
    )

    faults = [json.loads(line) for line in re.findall(r"^\{\"location\".*\}$", readme, re.MULTILINE)]
    wrong = body.replace('"Dream"', '"Dreem"').replace("49.5", '"49.5"')
    assert client.post("/predict", data=wrong).get_json()["error"]["faults"] == faults


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    """The service over the three examples, as `make run` trains them."""
    folder = tmp_path_factory.mktemp("examples")
    store = open_store(str(folder / "models"))
    for name in ("digits", "penguins", "xor"):
        job.run(job.load(ROOT / "examples" / f"{name}.toml"), store)
    settings = Settings(store=str(folder / "models"), cache_dir=str(folder / "cache"), poll_seconds=0)
    return create_app(settings).test_client()


def asked() -> Iterator[Any]:
    """Each curl line of a document that an answer follows: `$ curl -s localhost:8000/...`, and `{...}` below it."""
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for command, answer in re.findall(r"^\$ (curl -s (?:[^>|$]|\$')*?)\n(\{.*\})$", text, re.MULTILINE):
            yield pytest.param(command, answer, id=f"{document.name}-{command[8:60]}")


@pytest.mark.parametrize(("command", "answer"), [*asked()])
def test_what_the_documents_ask_is_answered_as_printed(examples: FlaskClient, command: str, answer: str) -> None:
    _, *words = shlex.split(command.replace("$'", "'"))
    (path,) = (word.partition("localhost:8000")[2] for word in words if "localhost:8000" in word)
    sent = dict(pairwise(words))
    body = sent.get("-d", sent.get("--data-binary"))
    found = examples.open(
        path,
        method="GET" if body is None else "POST",
        data=body and body.replace("\\n", "\n"),
        headers=[sent["-H"].split(": ")] if "-H" in sent else [],
    )
    assert_alike(found.get_json(), json.loads(answer.replace("{...}", '"..."').replace("[...]", '"..."')))


def assert_alike(found: Any, printed: Any) -> None:
    """Equal, but for what another processor rounds, what is left out as "...", and names of requests."""
    if isinstance(printed, dict):
        assert found.keys() == printed.keys()
        for key in printed.keys() - {"request_id"}:
            assert_alike(found[key], printed[key])
    elif isinstance(printed, list):
        assert len(found) == len(printed)
        for one, other in zip(found, printed, strict=True):
            assert_alike(one, other)
    elif isinstance(printed, float):
        assert found == pytest.approx(printed, abs=1e-3)
    else:
        assert printed in ("...", found)
