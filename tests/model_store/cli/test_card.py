"""`models card`: the model card of a version as Markdown and as JSON, and files that people have edited."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from model_store.artifact import npz
from model_store.registry.store import Store
from model_store.report.model_card import TO_WRITE
from tests.model_store.cli.conftest import read_json
from tests.model_store.cli.test_hostile_strings import evil  # noqa: F401 - a fixture

FIXTURES = Path(__file__).parents[2] / "fixtures"
SECTIONS = [
    "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data",
    "Quantitative analyses", "Ethical considerations", "Caveats and recommendations",
]  # fmt: skip


def headings(markdown: str) -> list[str]:
    return [line.removeprefix("## ") for line in markdown.splitlines() if line.startswith("## ")]


def test_a_card_has_the_sections_of_the_field_and_marks_what_a_person_must_write(models: Any) -> None:
    shown = models("card", "chess/2").stdout
    assert shown.startswith("# Model card: chess/2\n")
    assert headings(shown) == SECTIONS
    for question in TO_WRITE.values():
        assert f"- **To be written:** {question}\n" in shown


def test_the_json_card_has_null_where_a_person_must_write(models: Any) -> None:
    card = read_json(models("card", "chess/2", "--format", "json"))
    assert card == read_json(models("card", "chess/2", "--json"))
    assert card["model"] == "chess/2"
    assert card["to_write"] == TO_WRITE
    for location in card["to_write"]:
        section, _, key = location.partition(".")
        assert card[section][key] is None
    details = card["model_details"]
    assert details["digest"] == read_json(models("show", "chess/2", "--json"))["digest"]
    assert details["published"]["recorded"] is True


def test_an_edited_card_is_kept_unless_forced(models: Any, tmp_path: Path) -> None:
    path = tmp_path / "card.md"
    assert f"Wrote {path}. {len(TO_WRITE)} lines are to be written" in models("card", "chess/2", "-o", str(path)).stderr
    written = path.read_text(encoding="utf-8")
    models("card", "chess/2", "-o", str(path))  # the same content
    path.write_text(written.replace("**To be written:** Under which licence", "MIT"), encoding="utf-8")
    refused = models("card", "chess/2", "-o", str(path), code=5)
    assert f"{path}: already exists; overwrite it with --force" in refused.stderr
    assert "MIT" in path.read_text(encoding="utf-8")
    assert "Replaced" in models("card", "chess/2", "-o", str(path), "--force").stderr
    assert path.read_text(encoding="utf-8") == written


def test_a_file_that_ends_with_json_gets_the_json_card(models: Any, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    told = read_json(models("card", "chess/1", "-o", str(path), "--json"))
    assert told == {"name": "chess", "version": 1, "card": str(path), "to_write": list(TO_WRITE)}
    assert json.loads(path.read_text(encoding="utf-8"))["model"] == "chess/1"
    assert models("card", "chess/1", "-o", str(path), "--format", "markdown", "--force").exit_code == 0
    assert path.read_text(encoding="utf-8").startswith("# Model card")


@pytest.mark.parametrize("file", ["artifact_0_1_classifier.npz", "artifact_0_1_images.npz"])
def test_an_artifact_of_an_older_release_has_a_card(models: Any, store: Store, file: str) -> None:
    model = npz.read(FIXTURES / file)
    version = store.publish("old", model)
    shown = models("card", "old").stdout
    assert headings(shown) == SECTIONS
    assert version.digest in shown
    assert "The record says neither on which rows the model was measured" in shown
    shutil.rmtree(store.root / "old", ignore_errors=True)


def test_hostile_strings_stay_text_in_a_card(evil: Store, models: Any) -> None:  # noqa: F811 - the fixture
    markdown = models("card", "evil").stdout
    assert headings(markdown) == SECTIONS
    kinds = {token.type for block in MarkdownIt("gfm-like", {"linkify": False}).parse(markdown) for token in
             [block, *(block.children or ())]}  # fmt: skip
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "fence", "code_block", "em_open", "s_open"}
