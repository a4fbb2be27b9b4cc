"""The links, code blocks, diagrams and curl examples of the documents are correct."""

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
from scripts import diagrams, run_document
from service.app import create_app
from service.config import Settings
from tests.test_arrows import SUBPACKAGES
from training.pipeline import job

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *(
        ROOT / "docs" / f"{name}.md"
        for name in (
            "tutorial",
            "library",
            "scikit-learn",
            "jobs",
            "sweeps",
            "images",
            "operations",
            "signing",
            "versions",
            "exports",
            "imports",
            "answers",
        )
    ),
    *sorted((ROOT / "docs" / "reference").glob("*.md")),
]
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("benchmarks/*.md"),
    *ROOT.glob("examples/*.md"),
    ROOT / "clients/python/README.md",
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_files_and_headings_resolve(document: Path) -> None:
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
    """The anchors of the headings: lower case, hyphens between words, no punctuation."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    }


@pytest.mark.parametrize("name", diagrams.DRAWINGS)
def test_a_diagram_is_what_its_script_draws(name: str) -> None:
    """If it is not: python -m scripts.diagrams."""
    assert (diagrams.IMAGES / name).read_text(encoding="utf-8") == diagrams.DRAWINGS[name]().svg()


@pytest.mark.parametrize("package", diagrams.FOLDERS)
def test_the_diagram_of_the_folders_has_each_once(package: str) -> None:
    drawn = [name for name, _ in diagrams.FOLDERS[package][1] if name.endswith("/")]
    there = [f"{path.parent.name}/" for path in (ROOT / package).glob("*/__init__.py")]
    assert sorted(drawn) == sorted(there)


@pytest.mark.parametrize("package", diagrams.FOLDERS)
def test_a_folder_imports_only_from_those_drawn_above_it(package: str) -> None:
    order = [re.sub(r"/|\.py", "", name) for name, _ in diagrams.FOLDERS[package][1]]
    below = [
        (name, other)
        for place, name in enumerate(order)
        for other in SUBPACKAGES[package][name] & {*order}
        if order.index(other) > place
    ]
    assert below == []


def test_files_that_the_pages_for_contributors_and_the_diagrams_name_exist() -> None:
    page = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("docs/architecture.md", "CONTRIBUTING.md"))
    paths = re.findall(r"`([\w/.]+(?:/|\.py))`", page)
    drawn = [path for draw in diagrams.DRAWINGS.values() for path in re.findall(r">([\w/]+(?:/|\.py))<", draw().svg())]
    assert len(paths) > 10
    assert len(drawn) > 40
    homes = [ROOT, *(ROOT / package for package in diagrams.FOLDERS), ROOT / "training" / "data"]
    assert [
        path for path in [*paths, *drawn] if "NAME" not in path and not any((home / path).exists() for home in homes)
    ] == []


def test_programs_of_the_mathematics_page_run() -> None:
    text = (ROOT / "docs" / "mathematics.md").read_text(encoding="utf-8")
    programs = re.findall(r"```python\n(import numpy.*?)```", text, re.DOTALL)
    assert programs
    for program in programs:
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, cwd=ROOT)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_code_block_of_a_page_runs_and_prints_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    """If a message has changed: python -m scripts.run_document --update PAGE."""
    assert "\n\n".join(run_document.run(page, tmp_path)) == ""


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_make_targets_and_compose_services_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    targets = re.findall(r"^\$? ?make ([a-z-]+)", text, re.MULTILINE)
    assert [target for target in targets if f"\n{target}:" not in makefile] == []
    services = re.findall(r"^\$ docker compose run --rm (?:-v \S+ )?([a-z-]+)", text, re.MULTILINE)
    profiles = re.findall(r"^\$ docker compose --profile ([a-z-]+)", text, re.MULTILINE)
    assert [name for name in services if f"\n  {name}:" not in compose] == []
    assert [name for name in profiles if f"profiles: [{name}]" not in compose] == []


@pytest.mark.parametrize(
    ("shown", "found", "same"),
    [
        ("a\n...\nz\n", "a\nb\nc\nz\n", True),
        ("a\n...\nz\n", "a\nb\nc\n", False),
        ("...\nb\n", "a\nb\nc\n", False),
        ("a\nb\n", "a\nb\nc\n", False),
        ("loss 0.501  rows 7\n", "loss 0.502 rows 7\n", True),
        ("loss 0.501  rows 7\n", "loss 0.601 rows 7\n", False),
        ("loss 0.501  rows 7\n", "loss 0.501 rows 8\n", False),
        ("loaded in ... ms\n", "loaded in 12 ms\n", True),
        ('{"a": [1,\n "x"], "b": {...}}\n', '{"a":[1,"x"],"b":{"c":2}}', True),
        ('{"a": [1,\n "x"], "b": {...}}\n', '{"a":[1,"y"],"b":{"c":2}}', False),
        ("2026-11-29 09:28:08 by ada\n", "2027-01-02 10:00:00 by ada\n", True),
    ],
)
def test_output_is_compared_but_for_rounding_times_and_what_is_left_out(shown: str, found: str, same: bool) -> None:
    assert (run_document.difference(shown, found) is None) == same


def test_a_page_whose_output_has_changed_is_found_and_updated(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ echo new\nold\n$ printf 'a\\nb\\nc\\n'\n...\nc\n```\n", encoding="utf-8")
    (fault,) = run_document.run(page, tmp_path / "first", update=True)
    assert "-old\n+new" in fault
    assert page.read_text(encoding="utf-8") == "```console\n$ echo new\nnew\n$ printf 'a\\nb\\nc\\n'\n...\nc\n```\n"
    assert run_document.run(page, tmp_path / "second") == []


def test_a_block_that_nothing_runs_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```ruby\nputs 1\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="'ruby' is not run"):
        run_document.run(page, tmp_path / "folder")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    """The service over the three examples, as `make run` trains them."""
    folder = tmp_path_factory.mktemp("examples")
    store = open_store(str(folder / "models"))
    for name in ("digits", "penguins", "xor"):
        job.run(job.load(ROOT / "examples" / f"{name}.toml"), store)
    settings = Settings(store=str(folder / "models"), cache_dir=str(folder / "cache"), poll_seconds=0)
    return create_app(settings).test_client()


def curl_examples() -> Iterator[Any]:
    """Yield each `$ curl -s localhost:8000/...` of a document that a response `{...}` follows.

    Those of other models than the examples run with the commands of their page, which train them.
    """
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for command, answer in re.findall(r"^\$ (curl -s (?:[^>|$]|\$')*?)\n(\{.*\})$", text, re.MULTILINE):
            if not re.search(r"/models/(?!digits\b|penguins\b|xor\b)", command):
                yield pytest.param(command, answer, id=f"{document.name}-{command[8:60]}")


@pytest.mark.parametrize(("command", "answer"), [*curl_examples()])
def test_curl_examples_of_the_documents_return_the_printed_response(
    examples: FlaskClient, command: str, answer: str
) -> None:
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
    """Assert equality, except for rounding, text left out as "...", and request ids."""
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
