"""The script of the reference page shows untrusted text as the service's own pages do. Node runs it without a page."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from model_store.utils.printable import printable

NODE = shutil.which("node")
SCRIPT = Path(__file__).parents[3] / "service" / "static" / "docs.js"
# A page without forms, whose elements have texts and children.
RUN = """
import { readFileSync } from "node:fs";
const element = (tag) => ({ tag, style: {}, children: [], append(...more) { this.children.push(...more); } });
const body = { dataset: {} };
const document = { body, querySelectorAll: () => [], addEventListener() {}, createElement: element };
Object.assign(globalThis, { document, navigator: {}, location: { pathname: "/" }, addEventListener() {} });
const [script, expression] = process.argv.slice(-2);
const scripts = ["page.js", "model/answers.js", "model/explanation.js", "model/ranges.js", "docs.js"];
const files = scripts.map((name) => script.replace("docs.js", name));
const names = Object.assign({}, ...await Promise.all(files.map((file) => import(file))));
const given = JSON.parse(readFileSync(0, "utf8"));
const found = new Function(...Object.keys(names), "given", `return ${expression}`)(...Object.values(names), given);
process.stdout.write(JSON.stringify(found));
"""

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")


def run(expression: str, given: Any) -> Any:
    """Return the value of an expression after the script, in which `given` is defined."""
    command = [str(NODE), "--input-type=module", "-e", RUN, SCRIPT.as_uri(), expression]
    return json.loads(subprocess.check_output(command, input=json.dumps(given), text=True))


def test_every_character_is_shown_as_the_service_shows_it() -> None:
    letters = [chr(i) for i in range(sys.maxunicode + 1)]
    letters = [letter for letter in letters if unicodedata.category(letter) not in {"Cn", "Cs"}]
    found = run("given.map((letter) => printable(letter))", letters)
    assert [pair for pair in zip(letters, found, strict=True) if pair[1] != printable(pair[0], keep="\n")] == []
    assert printable("\u202e") == "\\u202e"


def test_answers_errors_and_requests_show_no_direction_mark() -> None:
    label = "a\u202eb"
    error = {"code": "x", "message": label, "faults": [{"location": label, "problem": label, "fix": label}]}
    for expression, given in (
        ("showFaults(given)", error),
        ("showFaults({ ...given, faults: [] })", error),
        ("showAnswer(given)", {"label": label, "probabilities": {label: 1}}),
        ("showAnswer(given)", {"labels": [label], "probabilities": {label: 1}}),
        ("showAnswer(given)", {label: 1.5}),
        ("showRange({}, given)", {"set": [label], "level": 0.9}),
        (
            "showExplanation(given)",
            {"label": label, "baseline": 0.5, "answer": 1, "contributions": {label: -0.5, "b": 1}, "residual": 0},
        ),
        ("fullResponse(given)", {"error": error}),
        ("compact(given)", {"instances": [{label: label}]}),
    ):
        shown = json.dumps(run(expression, given), ensure_ascii=False)
        assert "\u202e" not in shown, expression
        assert "a\\\\u202eb" in shown, expression
    assert json.loads(run("compact(given)", [label])) == [label]


def test_all_predicted_labels_are_shown() -> None:
    for labels, shown in ((["a", "b"], "a, b"), ([], "none of the labels")):
        answer, _ = run("showAnswer(given)", {"labels": labels, "probabilities": {"a": 0.9}})["children"]
        assert answer["textContent"] == shown
