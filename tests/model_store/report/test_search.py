"""The section of a report on the search: its charts for every kind of parameter, hostile names and invalid records."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from model_store.evaluation.record import TrainingRecord
from model_store.report.page import render
from model_store.report.svg import text_width
from tests.model_store.report.examples import EVIL, Page, classifier, record, search


def page_of(found: dict[str, Any]) -> Page:
    training = {**record(("no", "yes")), "search": found}
    return Page(render(classifier(("no", "yes"), training), "chess/3"))


def test_a_report_shows_history_importance_parallel_coordinates_and_the_best_trials() -> None:
    page = page_of(search())
    for words in (
        "Search",
        "Log loss by trial",
        "30 complete, 10 pruned, 0 failed. The line is the lowest value so far. The best is trial 39.",
        "Importance of the parameters",
        "train.learning_rate: 70.0 %",
        "Parallel coordinates",
        "trial 39: 0.02564",
        "Best trials",
        '[64, "relu"]',
        "never on the test rows",
    ):
        assert words in page.words
    assert page.count("svg") == 10  # three more than without a search


def test_a_model_without_a_search_has_no_such_section() -> None:
    page = Page(render(classifier(("no", "yes"), record(("no", "yes"))), "chess/3"))
    assert "Parallel coordinates" not in page.words


def test_hostile_names_are_text() -> None:
    found = search()
    found["parameters"][0]["name"] = EVIL
    found["parameters"][2]["options"][0] = EVIL
    assert page_of(found).count("script") == page_of(search()).count("script") == 1


@pytest.mark.parametrize("trials", [2, 300])
def test_every_point_is_inside_its_chart(trials: int) -> None:
    training = {**record(("no", "yes")), "search": search(trials)}
    drawn = render(classifier(("no", "yes"), training), "chess/3")
    drawn = drawn[drawn.index("<h2>Search") : drawn.index("<h2>Inputs")]
    sizes = [(float(w), float(h)) for w, h in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn)]
    for svg, (wide, high) in zip(drawn.split("<svg")[1:], sizes, strict=True):
        for points in re.findall(r'points="([^"]+)"', svg):
            for x, y in (map(float, point.split(",")) for point in points.split()):
                assert 0 <= x <= wide
                assert 0 <= y <= high
        for x, words in re.findall(r'<text x="([\d.]+)"[^>]*class="tick over"[^>]*>([^<]+)</text>', svg):
            assert float(x) + text_width(words) <= wide, words


@pytest.mark.parametrize(("low", "high"), [(5e-324, 1e-300), (1e-300, 1e-100), (1e99, math.nextafter(1e99, math.inf))])
def test_a_logarithmic_parameter_may_have_any_numbers_above_0(low: float, high: float) -> None:
    found = search()
    index = next(i for i, one in enumerate(found["parameters"]) if one.get("log"))
    found["parameters"][index] |= {"low": low, "high": high}
    for trial in found["trials"]:
        trial["values"][index] = high if trial["number"] % 2 else low
    assert "Parallel coordinates" in page_of(found).words


@pytest.mark.parametrize(
    "changes",
    [
        {"trials": []},
        {"trials": [{"number": 1, "state": "complete", "value": 1.0, "values": [0.01, 6]}], "best": 1},
        {"trials": [{"number": 1, "state": "complete", "value": 1.0, "values": [5.0, 6, 0]}], "best": 1},
        {"trials": [{"number": 1, "state": "complete", "value": 1.0, "values": [0.01, 6, 0.5]}], "best": 1},
        {"trials": [{"number": 1, "state": "complete", "value": 1.0, "values": [0.01, 6, 2]}], "best": 1},
        {"trials": [{"number": 1, "state": "complete", "value": 1e300, "values": [0.01, 6, 0]}], "best": 1},
        {"trials": search(301)["trials"]},
        {"best": 4},
        {"best": 99},
        {"parameters": []},
        {"parameters": [{"name": "a", "low": 1, "high": 1}] * 3},
        {"parameters": [{"name": "a", "low": -1, "high": 1, "log": True}] * 3},
        {"metric": 5},
        {"complete": -1},
    ],
)
def test_an_invalid_record_is_left_out(changes: dict[str, Any]) -> None:
    assert TrainingRecord.parse({"search": search(**changes)}).search is None
    page_of(search(**changes))
