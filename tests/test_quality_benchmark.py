"""The quality benchmark: its tables, its statistics, and a run that continues where it was interrupted."""

import csv
import json
import sys
from math import log

import pytest

from benchmarks.quality import __main__ as program
from benchmarks.quality import measures, runs
from benchmarks.quality.summary import load_committed, save_committed, summary
from benchmarks.quality.tables import HELD_OUT, KEPT_FOR_JUDGING, TABLES, Table, held_out, sample

TIPS = next(table for table in TABLES if table.name == "tips")
PENGUINS = next(table for table in TABLES if table.name == "penguins")


def test_the_tables_are_at_least_25_of_both_tasks_with_distinct_names():
    assert len({table.name for table in TABLES}) == len(TABLES) >= 25
    assert sum(table.classes for table in TABLES) >= 10
    assert sum(not table.classes for table in TABLES) >= 10


def test_no_table_is_one_that_is_kept_for_judging():
    sources = [f"{table.name} {table.source}".casefold() for table in TABLES]
    assert not [source for source in sources for name in KEPT_FOR_JUDGING if name in source]


def test_no_target_is_among_the_columns_that_are_dropped():
    assert not [table.name for table in TABLES if table.target in table.drop]


def test_the_same_rows_are_held_out_every_time_and_of_every_class_its_share():
    labels = ["a"] * 60 + ["b"] * 40
    held = held_out("tips", range(100), labels)
    assert held == held_out("tips", range(100), labels)
    assert sum(index < 60 for index in held) == 60 * HELD_OUT
    assert sum(index >= 60 for index in held) == 40 * HELD_OUT
    assert held != held_out("cars", range(100), labels)
    assert held != held_out("tips", range(100), labels, purpose="development")


def test_a_sample_keeps_the_order_of_the_rows():
    chosen = sample("flights", 1000, 50)
    assert len(set(chosen)) == 50
    assert chosen == sorted(chosen)
    assert sample("tips", 20, 50) == list(range(20))


def test_errors_are_those_of_the_definitions():
    assert measures.rmse([1.0, 2.0], [1.0, 4.0]) == pytest.approx(2**0.5)
    rows = [[0.5, 0.5], [0.1, 0.9]]
    assert measures.log_loss(["x", "y"], ["x", "y"], rows) == pytest.approx(-(log(0.5) + log(0.9)) / 2)
    assert measures.error_rate(["y", "x"], ["x", "y"], rows) == 1
    assert measures.log_loss(["z"], ["x", "y"], [[0.5, 0.5]]) == pytest.approx(-log(measures.SMALLEST))
    assert measures.geometric_mean([0.5, 2.0]) == pytest.approx(1)


def test_ranks_are_those_of_demsars_example():
    """Demšar (2006), table 6 (AUC of C4.5, with pruning, leaves and both, on 14 data sets); higher is better there."""
    auc = [
        (0.763, 0.768, 0.771, 0.798), (0.599, 0.591, 0.590, 0.569), (0.954, 0.971, 0.968, 0.967),
        (0.628, 0.661, 0.654, 0.657), (0.882, 0.888, 0.886, 0.898), (0.936, 0.931, 0.916, 0.931),
        (0.661, 0.668, 0.609, 0.685), (0.583, 0.583, 0.563, 0.625), (0.775, 0.838, 0.866, 0.875),
        (1.000, 1.000, 1.000, 1.000), (0.940, 0.962, 0.965, 0.962), (0.619, 0.666, 0.614, 0.669),
        (0.972, 0.981, 0.9751, 0.975), (0.957, 0.978, 0.946, 0.970),
    ]  # fmt: skip
    tables = [dict(zip(("C4.5", "m", "cf", "m+cf"), (-value for value in row), strict=True)) for row in auc]
    found = measures.mean_ranks(tables)
    assert found == pytest.approx({"C4.5": 3.143, "m": 2.000, "cf": 2.893, "m+cf": 1.964}, abs=5e-4)
    assert measures.friedman(found, 14) == pytest.approx(9.28, abs=0.01)
    assert measures.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


@pytest.fixture
def folder(tmp_path):
    """A folder with two small tables, exported."""
    for table, rows in {
        TIPS: [(x, 2 * x + 1) for x in range(30)],
        PENGUINS: [(x, "ab"[x % 2]) for x in range(30)],
    }.items():
        place = tmp_path / "tables" / table.name / "test"
        place.mkdir(parents=True)
        for name, part in {"train": rows[:20], "test": rows[20:]}.items():
            with (place / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([("x", table.target), *part])
    return tmp_path


@pytest.fixture
def peer(monkeypatch, tmp_path):
    """A peer whose process counts its runs and predicts the same for all rows."""
    counter = tmp_path / "runs"
    script = tmp_path / "peer.py"
    script.write_text(
        "import json, sys\n"
        "name, train, test, target, task, seed, answer = sys.argv[1:]\n"
        f"open({str(counter)!r}, 'a').write(f'{{target}} {{seed}}\\n')\n"
        "if seed == '1': sys.exit('no more memory')\n"
        "rows = len(open(test).read().splitlines()) - 1\n"
        "found = {'labels': ['a', 'b'], 'probabilities': [[.75, .25]] * rows} if task == 'classes' else "
        "{'predictions': [50] * rows}\n"
        "open(answer, 'w').write(json.dumps(found | {'seconds': 0.5}))\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(runs, "PEER", script)
    return runs.Contestant("lightgbm", runs.Path(sys.executable), "1"), counter


def test_an_interrupted_run_continues_where_it_was(folder, peer):
    one, counter = peer
    results = runs.Results(folder, "test")
    measure = [[one], {"tips": "d1", "penguins": "d2"}, 1, results, folder / "tables", 60]
    program.measure(*measure)
    path = folder / "results" / "test" / "lightgbm.jsonl"
    assert [result["table"] for result in results.of(one)] == ["tips", "penguins"]
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")  # interrupted while it wrote
    program.measure(*measure)
    assert [result["table"] for result in results.of(one)] == ["tips", "penguins"]
    program.measure(*measure)
    assert counter.read_text(encoding="utf-8").splitlines() == ["tip 0", "species 0", "species 0"]


def test_results_of_another_version_or_table_are_not_taken_for_these(folder, peer):
    one, _ = peer
    results = runs.Results(folder, "test")
    results.add(one, "tips", "d1", 0, {"rmse": 1.0})
    assert results.has(one, "tips", "d1", 0)
    assert not results.has(one, "tips", "d2", 0)
    assert not results.has(one, "tips", "d1", 1)
    assert not results.has(runs.Contestant("lightgbm", one.python, "2"), "tips", "d1", 0)


def test_committed_results_count_as_measured(folder, peer):
    one, counter = peer
    committed = {"lightgbm": [{"version": "1", "table": "tips", "data": "d1", "seed": 0, "rmse": 1.0}]}
    results = runs.Results(folder, "test", committed)
    program.measure([one], {"tips": "d1", "penguins": "d2"}, 1, results, folder / "tables", 60)
    assert counter.read_text(encoding="utf-8").splitlines() == ["species 0"]
    results.add(one, "tips", "d1", 0, {"rmse": 2.0})
    assert results.of(one)[0]["rmse"] == 2.0  # once, and the later one
    assert [result["table"] for result in results.of(one)] == ["tips", "penguins"]


def test_a_run_measures_errors_time_and_memory_and_says_why_it_failed(folder, peer):
    one, _ = peer
    classes = runs.run(one, PENGUINS, folder / "tables" / "penguins" / "test", 0, 60)
    assert classes["log_loss"] == pytest.approx(-(log(0.75) + log(0.25)) / 2)
    assert classes["error_rate"] == 0.5
    assert classes["work"] == 0.5
    assert classes["memory"] > 1
    assert runs.run(one, TIPS, folder / "tables" / "tips" / "test", 0, 60)["rmse"] == pytest.approx(33**0.5)
    assert runs.run(one, TIPS, folder / "tables" / "tips" / "test", 1, 60)["failed"] == "no more memory"


def test_our_contestant_trains_and_predicts_by_the_commands(folder):
    one = runs.contestant("ours", folder, ["train.epochs=2"])
    found = runs.run(one, PENGUINS, folder / "tables" / "penguins" / "test", 3, 120)
    assert "failed" not in found
    assert 0 < found["log_loss"] < 3
    assert one.version.endswith("train.epochs=2")


def _result(table: Table, seed: int, error: float, **more: float) -> dict[str, object]:
    figures = {"log_loss": error, "error_rate": 0.1} if table.classes else {"rmse": error}
    costs = {"process": 1.0, "work": 1.0, "memory": 50.0}
    return {"table": table.name, "data": "d", "seed": seed, "version": "1", **figures, **costs, **more}


def test_the_summary_shows_ratios_ranks_and_failures():
    results = {
        "ours": [_result(TIPS, 0, 1.0), _result(TIPS, 1, 3.0), _result(PENGUINS, 0, 0.5)],
        "realmlp": [
            _result(TIPS, 0, 1.0, process=4.0),
            _result(PENGUINS, 0, 1.0),
            {"table": "tips", "seed": 1, "failed": "x"},
        ],
    }
    text = summary(results, {table.name: table for table in (TIPS, PENGUINS)})
    assert "| realmlp | 2 | 1 | **1.005** | 2.000 | 0.505 | 1.000 | tips 2.00 | 0.500 | 1.000 | 1.000 |" in text
    assert "| ours | 1.50 | yes |" in text
    assert "| tips | 2 | 2 | 1.0 | 50 | 2.00 |" in text
    assert "means over the seeds: of ours 2 of 1 tables, 1 of 1\n" in text
    assert "- realmlp, tips, seed 1: x" in text


def test_a_contestant_that_failed_on_a_table_has_the_last_rank_there():
    results = {
        "ours": [_result(TIPS, 0, 1.0), _result(PENGUINS, 0, 0.5)],
        "realmlp": [_result(TIPS, 0, 0.5), {"table": "penguins", "seed": 0, "failed": "x"}],
        "lightgbm": [_result(TIPS, 0, 2.0)],  # not measured on penguins yet
    }
    tables = {table.name: table for table in (TIPS, PENGUINS)}
    assert "over 1 tables" in summary(results, tables)
    del results["lightgbm"]
    assert "| realmlp | 1.50 | yes |" in summary(results, tables)
    assert summary(results, tables, "before") == "No result of before yet."


def test_committed_results_come_back_unless_the_table_is_another(tmp_path):
    path = tmp_path / "peers.json"
    save_committed(path, {"ours": [_result(TIPS, 0, 1.0)], "realmlp": [_result(TIPS, 0, 1.23456789)]})
    (found,) = load_committed(path, {"tips": "d"})["realmlp"]
    assert found["rmse"] == 1.2346
    assert found["process"] == 1.0
    assert list(load_committed(path, {"tips": "d"})) == ["realmlp"]
    assert load_committed(path, {"tips": "e"}) == {"realmlp": []}
    assert json.loads(path.read_text(encoding="utf-8"))["data"] == {"tips": "d"}
