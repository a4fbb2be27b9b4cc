"""The benchmarks compare like with like."""

import importlib
import json
import os
import subprocess
import sys
from operator import attrgetter

import numpy as np
import pytest

from benchmarks import initializers, instruction_stages, serving
from benchmarks.contestants import CONTESTANTS, PEERS
from benchmarks.per_sample import PerSample
from benchmarks.rounds import alternate, unpinned
from model_store.nn import Linear, Sequential, Tanh
from training import MSE, SGD, train


def test_the_peer_of_the_training_benchmark_learns_what_train_learns():
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((20, 3)), rng.uniform(-1, 1, (20, 2))
    network = Sequential(
        [Linear(3, 4, dtype=np.float64, rng=rng), Tanh(), Linear(4, 2, dtype=np.float64, rng=rng), Tanh()]
    )
    peer = PerSample([3, 4, 2], rng, 0.05, 0.9)
    arrays = network.arrays()
    peer.weights = [arrays["modules.0.weights"].copy(), arrays["modules.2.weights"].copy()]
    peer.biases = [arrays["modules.0.bias"].reshape(-1, 1).copy(), arrays["modules.2.bias"].reshape(-1, 1).copy()]
    ours = train(network, x, y, MSE(), SGD(network, 0.05, 0.9), epochs=30, on_epoch=None)
    theirs = [peer.epoch(x[:, :, None], y[:, :, None]) for _ in range(30)]
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_default_weights_learn_the_digits_and_the_articles_program():
    assert initializers.accuracy(initializers.dense(Tanh), 0) > 0.93
    assert initializers.learns_xor(0)


def test_contestants_take_turns_and_medians_are_reported():
    turns = []

    def contestant(name, figures):
        remaining = iter(figures)

        def measure():
            turns.append(name)
            return {"figure": next(remaining)}

        return measure

    found = alternate({"a": contestant("a", [1, 9, 2]), "b": contestant("b", [5, 4, 6])}, rounds=3)
    assert found == {"a": {"figure": 2}, "b": {"figure": 5}}
    assert "".join(turns) == "abbaab"


@pytest.mark.parametrize("name", serving.NETWORKS)
def test_the_naive_peer_of_the_serving_benchmark_answers_what_the_network_answers(name, tmp_path, monkeypatch):
    network = serving.Network(name, tmp_path)
    monkeypatch.setenv("BENCH_ARTIFACT", str(network.artifact))
    monkeypatch.syspath_prepend(str(PEERS))
    monkeypatch.delitem(sys.modules, "naive_service", raising=False)
    client = importlib.import_module("naive_service").app.test_client()
    answer = client.post("/predict", json={"instances": network.rows[32]})
    assert np.array(answer.json["predictions"]) == pytest.approx(network.expected, abs=serving.AGREEMENT)


def test_a_service_that_answers_something_else_is_not_measured(tmp_path):
    network = serving.Network("xor", tmp_path)
    contestant = CONTESTANTS[0]
    asked = serving.bodies(contestant, network.rows, tmp_path)

    class Wrong:
        def predictions(self, body):
            answers = network.expected[: len(json.loads(body)["instances"])].ravel()
            return (answers + 2e-5).tolist()

    with pytest.raises(serving.FailedError, match=r"found 2\.0e-05 from them"):
        serving.check(Wrong(), network, asked)


@pytest.mark.slow
def test_who_takes_part_is_started_and_checked_but_not_loaded(tmp_path):
    network = serving.Network("xor", tmp_path)
    taking, absent = serving.able(["ours"], [network], 2)
    assert [one.name for one in taking] == ["ours"]
    assert not absent


def test_figures_measured_in_parts_make_one_table(tmp_path):
    path = tmp_path / "figures.json"
    cells = {f"{rows}/{connections}": 1.0 for rows, connections in serving.CELLS}
    one = {f"{cell} {key}": 1.0 for cell in cells for key in ("rate", "p50", "p99")}
    one |= {f"{cell} failed": 0.0 for cell in cells} | {"cold start": 250.0, "memory": 50.0, "free": 0.9}
    serving.kept(path, {"xor": {"1": {"naive": one}}}, {"naive": 79.0})
    twice = one | {f"{cell} rate": 2.0 for cell in cells}
    figures, sizes = serving.kept(path, {"xor": {"1": {"ours": twice}}}, {"ours": 112.0})
    table = serving.tables(figures, sizes, {"litserve": "not installed: no such package"})
    assert "| ours | **2.0x** 2/s, 1.00 / 1.00 ms |" in table
    assert "0.25 s | 50 MiB | 112 MB |" in table
    assert "| litserve | not installed: no such package |" in table


def test_contestants_choose_their_blas_kernel_themselves():
    environ = {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_L2_SIZE": "512", "PATH": "/bin"}
    assert unpinned(environ) == {"PATH": "/bin"}
    assert len(environ) == 3


def test_a_benchmark_whose_kernel_is_pinned_begins_anew_without_the_pin():
    program = "from benchmarks.rounds import unpin; unpin(); import os, sys; print(sys.argv[1:], *os.environ)"
    environ = os.environ | {"OPENBLAS_CORETYPE": "Haswell"}
    command = [sys.executable, "-c", program, "peers/bin/python"]
    told = subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout
    assert told.startswith("['peers/bin/python'] ")
    assert "OPENBLAS_CORETYPE" not in told


@pytest.mark.parametrize("place", [place for places in instruction_stages.PARTS.values() for place in places])
def test_the_functions_of_counted_stages_exist(place):
    module, _, path = place.partition(":")
    assert callable(attrgetter(path)(importlib.import_module(module)))
