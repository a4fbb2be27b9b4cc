"""Parts of the scripts of pages that need no page. Node runs them."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from typing import Any

import pytest

from tests.service.server.server_process import ROOT

NODE = shutil.which("node")
RUN = """
import { readFileSync } from "node:fs";
const [script, expression] = process.argv.slice(-2);
const names = await import(script);
const given = JSON.parse(readFileSync(0, "utf8"));
const found = new Function(...Object.keys(names), "given", `return ${expression}`)(...Object.values(names), given);
process.stdout.write(JSON.stringify(found));
"""
SCRIPTS = ROOT / "service" / "static" / "model"

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")


def run(script: str, expression: str, given: Any) -> Any:
    """Return the value of an expression of a module's exports, in which `given` is defined."""
    command = [str(NODE), "--input-type=module", "-e", RUN, (SCRIPTS / script).as_uri(), expression]
    return json.loads(subprocess.check_output(command, input=json.dumps(given), text=True))


TABLES = [
    "a,b\n1,2\n",
    "a,b\r\n1,2\r\n3,4",
    'a,b\n"x, y","line\nbreak"\n"say ""yes""",\n',
    "a;b\n1,5;2\n",
    "a\tb\n1\t2\n\n3\t4\n",
    'a,b\n"",""\n',
]


@pytest.mark.parametrize("text", TABLES)
def test_csv_is_read_as_python_reads_it(text: str) -> None:
    separator = ";" if ";" in text else "\t" if "\t" in text else ","
    expected = [row for row in csv.reader(text.splitlines(keepends=True), delimiter=separator) if row]
    read = "[...records(given)].map((record) => cells(record, separatorOf([...records(given)][0])))"
    assert run("csv.js", read, text) == expected
    assert "".join(run("csv.js", "[...records(given)]", text)) == text.replace("\n\n", "\n")


def test_quoted_cells_are_read_back() -> None:
    row = ["plain", "a,b", 'say "yes"', "two\nlines", "x;y", ""]
    line = run("csv.js", 'given.map(quoted).join(",")', row)
    assert next(csv.reader(line.splitlines(keepends=True))) == row


def test_a_slider_has_linear_values_with_few_digits_and_covers_more_than_the_training_rows() -> None:
    column = {
        "min": 172,
        "max": 231,
        "deciles": [172, 185, 188, 191, 194, 197, 203, 210, 215, 220, 231],
        "integral": True,
    }
    scale = run("fields.js", "[scaleOf(given), scaleOf(given).toValue(200.4)]", column)
    assert scale[0]["min"] < 172
    assert scale[0]["max"] > 231
    assert scale[0]["step"] == 1
    assert scale[1] == 200


def test_a_slider_over_a_long_tail_gives_most_of_its_way_to_most_rows() -> None:
    deciles = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 100_000]
    column = {"min": 0, "max": 100_000, "deciles": deciles, "integral": True}
    places = run("fields.js", "given.deciles.map(scaleOf(given).toPosition)", column)
    assert places[9] - places[1] > 50  # of 400; on a linear scale 0.03
    assert places[0] > 0
    assert places[10] < 400
    back = run(
        "fields.js", "given.deciles.map((value) => scaleOf(given).toValue(scaleOf(given).toPosition(value)))", column
    )
    assert back == pytest.approx(deciles, rel=0.01, abs=0.01)
