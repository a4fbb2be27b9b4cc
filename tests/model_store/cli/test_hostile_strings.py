"""Strings of models, aliases and requests can neither command a terminal nor reorder what it shows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from unicodedata import category

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from model_store.artifact.model import Golden, Model
from model_store.cli import terminal
from model_store.cli.main import main
from model_store.nn import build
from model_store.registry.store import Store
from model_store.schema.signature import CategoryColumn, ClassificationOutput, NumberColumn, Signature
from model_store.utils.printable import printable

EVIL = "\x1b[2J\x1b]0;owned\x07\x9b1m\r\u202egnp.exe\u2066\u200f\x7f\u2028\nError: forged"


def hostile(seed: int = 0) -> Model:
    """A classifier whose every string is hostile, in nested keys of its record, too."""
    layers = [{"type": "Linear", "input_size": 3, "output_size": 2}, {"type": "Softmax"}]
    network = build(layers, "float32", rng=np.random.default_rng(seed))
    inputs = NumberColumn(f"age{EVIL}", 40.0, 12.5), CategoryColumn(f"town{EVIL}", (f"Bath{EVIL}", "York"))
    signature = Signature(inputs, ClassificationOutput(f"chess{EVIL}", (f"no{EVIL}", f"yes{EVIL}{seed}")))
    rows = [[30, "York"]]
    group = {f"k{EVIL}": {f"a{EVIL}": 1, f"b{EVIL}": EVIL}, "l": {f"a{EVIL}": 2, f"b{EVIL}": EVIL}}
    training: dict[str, Any] = {
        "metrics": {"accuracy": 0.75 + seed / 10, "of": EVIL, EVIL: 0.5 + seed / 10, "groups": group},
        "baseline": {"accuracy": 0.4, "answer": EVIL},
        "job": {f"train{EVIL}": {f"epochs{EVIL}": seed, "note": f"{EVIL}{seed}"}},
        "data": {"name": EVIL, "columns": [EVIL, EVIL]},
        EVIL: {EVIL: {EVIL: EVIL}},
    }
    return Model(network, signature, EVIL, training, Golden(rows, network(signature.encode(rows, dtype="float32"))))


def assert_visible(text: str, *, lines: bool = True) -> None:
    hidden = {letter for letter in text if not (letter.isprintable() or letter == "\n" or category(letter) == "Zs")}
    assert not hidden, hidden
    assert not [line for line in text.splitlines() if lines and line.startswith("Error: forged")]


@pytest.fixture
def evil(store: Store) -> Store:
    when = datetime(2026, 1, 2, tzinfo=UTC)
    for seed in range(2):
        store.publish("evil", hostile(seed), who=EVIL, when=when)
    for version in (1, 2):
        store.set_alias("evil", "default", version, who=EVIL, why=EVIL, when=when)
    return store


COMMANDS = [
    ["list"], ["list", "evil"], ["show", "evil"], ["compare", "evil/1", "evil/2"], ["history", "evil"],
    ["alias", "evil"],
    ["verify", "evil"], ["predict", "evil", "--row", '[3, "York"]'], ["predict", "evil", "--row", '[3, "Yrk"]'],
    ["predict", "evil", "--row", json.dumps({f"age{EVIL}x": 3})], ["show", f"evil{EVIL}"], ["show", f"evil/{EVIL}"],
    ["rollback", "evil"], ["promote", "evil", "2", "--if", f"accuracy{EVIL}>=default"], ["promote", "evil", "2"],
    ["report", "evil", "-o", "-"], ["card", "evil"], ["card", "evil", "--format", "json"],
    ["export", "evil", "--to", "onnx", "-o", "/dev/null"],
    ["gc", "--dry-run"], ["show", "evil", "-vv"], ["show", "evil/9", "-vv"],
]  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: ascii(" ".join(words)))
@pytest.mark.parametrize("as_json", [False, True])
def test_no_command_shows_characters_that_are_not_visible(
    evil: Store, words: list[str], as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for console in (terminal.stdout, terminal.stderr):
        monkeypatch.setattr(console, "width", 1000)  # a line that is wrapped may begin with any word
    shown = CliRunner().invoke(main, [*words, *(["--json"] if as_json else [])], env={"MODEL_STORE": str(evil.root)})
    assert shown.exception is None or isinstance(shown.exception, SystemExit)
    assert_visible(shown.output, lines=words[0] != "report")  # HTML has no lines


@given(st.text())
def test_printable_text_keeps_the_meaning_of_json(text: str) -> None:
    dumped = json.dumps({"a": text}, ensure_ascii=False)
    assert json.loads(printable(dumped)) == {"a": text}
    assert_visible(printable(text))
    assert printable(printable(text)) == printable(text)


def test_text_is_cut_with_its_length() -> None:
    assert printable("x" * 50, max_length=4) == "xxxx... (50 characters)"
    assert printable("é 漢字 \u3000\u00a0😀", max_length=20) == "é 漢字 \u3000\u00a0😀"
    assert printable("a\nb\tc", keep="\n") == "a\nb\\tc"
