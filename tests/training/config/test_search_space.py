"""The section [search]: distributions, their faults, and the keys of the job that a set of values becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model_store.utils.toml import parse_toml
from training.config.search_space import Choice, Range, SearchSpace, parse_space
from training.errors import JobError
from training.pipeline.job import from_dict

JOB = """
[model]
name = "m"
[data]
path = "d.csv"
target = "t"
[network]
layers = [16, "tanh"]
[train]
learning_rate = 0.05
early_stopping = { patience = 5, metric = "loss" }
"""


def load(search: str, job: str = JOB) -> SearchSpace:
    settings = from_dict(parse_toml(job + search), Path()).settings
    assert settings.search is not None
    return settings.search.space


def faults(search: str, job: str = JOB) -> dict[str, str]:
    """Return the faults of a job with this search, by location."""
    with pytest.raises(JobError) as caught:
        from_dict(parse_toml(job + search), Path())
    return {fault.location: f"{fault.problem} ({fault.fix})" for fault in caught.value.faults}


def test_every_distribution_is_read() -> None:
    space = load(
        """
        [search.train]
        learning_rate = { log_uniform = [0.001, 0.3] }
        weight_decay = { uniform = [0, 0.1], step = 0.05 }
        batch_size = { log_integer = [8, 64] }
        epochs = { integer = [10, 35], step = 10 }
        early_stopping = { patience = { integer = [3, 9] } }
        clip_norm = { choice = [0.5, 1.0] }
        """
    )
    assert space.parameters == {
        "train.learning_rate": Range(0.001, 0.3, log=True),
        "train.weight_decay": Range(0, 0.1, step=0.05),
        "train.batch_size": Range(8, 64, integer=True, log=True),
        "train.epochs": Range(10, 30, integer=True, step=10),
        "train.early_stopping.patience": Range(3, 9, integer=True),
        "train.clip_norm": Choice((0.5, 1.0)),
    }


def test_a_search_has_defaults() -> None:
    job = from_dict(parse_toml(JOB + "[search.train]\nepochs = { integer = [1, 3] }"), Path())
    search = job.settings.search
    assert search is not None
    assert (search.trials, search.timeout, search.metric, search.pruning) == (50, None, None, "median")


def test_values_become_keys_of_the_job() -> None:
    """Tables are set key by key, so that the job's other keys stay; lists are set as a whole."""
    space = load(
        """
        [search.train.early_stopping]
        patience = { integer = [3, 9] }
        [search.network]
        layers = [{ log_integer = [4, 64] }, "tanh", { dropout = { uniform = [0, 0.5] } }]
        """
    )
    values = {"train.early_stopping.patience": 7, "network.layers.0": 12, "network.layers.2.dropout": 0.25}
    assert space.overrides(values) == {
        "train.early_stopping.patience": 7,
        "network.layers": [12, "tanh", {"dropout": 0.25}],
    }


def test_the_values_of_the_job_itself_are_found_if_they_are_in_the_space() -> None:
    space = load("[search.network]\nlayers = { choice = [[16, 'tanh'], [8, 'relu']] }")
    assert space.initial_values(parse_toml(JOB)) == {"network.layers": [16, "tanh"]}
    beyond = load("[search.train]\nlearning_rate = { log_uniform = [0.1, 1] }")
    assert beyond.initial_values(parse_toml(JOB)) is None


def test_the_size_of_a_space_counts_its_sets() -> None:
    found = parse_space({"train": {"epochs": {"integer": [1, 5]}, "batch_size": {"choice": [8, 16, 32]}}})
    assert isinstance(found, SearchSpace)
    assert found.size == 15
    endless = load("[search.train]\nlearning_rate = { uniform = [0.1, 1] }")
    assert endless.size is None


def test_the_values_of_steps_are_the_decimal_ones() -> None:
    """0 + 3 * 0.3 is 0.8999999999999999 in binary, which Optuna's distribution does not contain."""
    found = parse_space({"train": {"weight_decay": {"uniform": [0, 1], "step": 0.3}}})
    assert isinstance(found, SearchSpace)
    (steps,) = found.parameters.values()
    assert isinstance(steps, Range)
    assert steps.values == [0, 0.3, 0.6, 0.9]
    assert steps.high == steps.nearest(0.8999999999999999) == 0.9


@pytest.mark.parametrize(
    ("table", "location", "part"),
    [
        ("learning_rate = { log_uniform = [0, 1] }", "learning_rate.log_uniform", "above 0 on a logarithmic scale"),
        ("learning_rate = { uniform = [1, 0.1] }", "learning_rate.uniform", "a lowest number below the highest"),
        ("learning_rate = { uniform = 3 }", "learning_rate.uniform", "expected two numbers"),
        ("epochs = { integer = [1, 2.5] }", "epochs.integer", "expected two integers"),
        ("epochs = { choice = [1] }", "epochs.choice", "a list of 2 to 100 values"),
        ("epochs = { choice = [1, 1] }", "epochs.choice", "1 is listed twice"),
        ("epochs = { integer = [1, 9], stp = 2 }", "epochs.stp", "did you mean 'step'?"),
        ("epochs = { integer = [1, 9], step = 0.5 }", "epochs.step", "expected an integer, found 0.5"),
        ("learning_rate = { uniform = [0, 1], step = 5e-324 }", "learning_rate.step", "expected at least 1e-06"),
        ("learning_rate = { uniform = [0, 1], step = 1e-300 }", "learning_rate.step", "expected at least 1e-06"),
        ("learning_rate = { log_uniform = [5e-324, 1] }", "learning_rate.log_uniform", "at least 1e-300 in size"),
        ("learning_rate = { uniform = [0, 1e-320] }", "learning_rate.uniform", "at least 1e-300 in size"),
        ("learning_rate = { uniform = [1, 1.0000000000000002] }", "learning_rate.uniform", "more than a billionth"),
        ("learning_rate = { unifrm = [0, 1] }", "learning_rate", "did you mean 'uniform'?"),
        ("learning_rate = 0.1", "learning_rate", "a fixed value belongs in the section of the job"),
        ("seed = { integer = [1, 9] }", "seed", "the split of the rows depends on it"),
        ("early_stopping = { metric = { choice = ['loss', 'd2'] } }", "early_stopping.metric", "different metrics"),
        ("learnin_rate = { uniform = [0.1, 1] }", "learnin_rate", "did you mean 'learning_rate'?"),
        ("learning_rate = { uniform = [0, 1] }", "learning_rate", "expected a number above 0, found 0"),
        ("class_weights = { 'a.b' = { uniform = [1, 2] } }", "class_weights", "expected keys without dots"),
    ],
)  # fmt: skip
def test_a_fault_names_location_problem_and_fix(table: str, location: str, part: str) -> None:
    found = faults(f"[search.train]\n{table}")
    assert part in found[f"search.train.{location}"]


def test_a_key_that_only_one_option_accepts_is_a_fault_before_any_trial() -> None:
    found = faults("[search.train]\noptimizer = { choice = ['sgd', 'adamw'] }\nmomentum = { uniform = [0, 0.9] }")
    assert "found the optimizer 'adamw' (with train.optimizer = \"adamw\")" in found["search.train.momentum"]


def test_columns_and_targets_cannot_be_searched() -> None:
    assert (
        "all trials have the same rows"
        in faults("[search.data]\ntarget = { choice = ['a', 'b'] }")["search.data.target"]
    )


@pytest.mark.parametrize(
    ("search", "location", "part"),
    [
        ("[search]\ntrials = 0\n[search.train]\nepochs = { integer = [1, 2] }", "search.trials", "found 0"),
        ("[search]\nmetric = 'acuracy'\n[search.train]\nepochs = { integer = [1, 2] }", "search.metric", "'accuracy'?"),
        ("[search]\npruning = 'medain'\n[search.train]\nepochs = { integer = [1, 2] }", "search.pruning", "'median'?"),
        ("[search]\ntrials = 5", "search", "expected keys to search, found none"),
        ("[search]\nlearning_rate = 5", "search.learning_rate", "it belongs in [search.train]"),
        ("[search.split]\ntest = { uniform = [0.1, 0.2] }", "search.split", "unknown key"),
        ("[search]\ntrain = {}", "search.train", "expected keys of [train]"),
    ],
)
def test_a_fault_of_the_search_names_its_key(search: str, location: str, part: str) -> None:
    assert part in faults(search)[location]


def test_a_search_needs_the_training_that_it_starts_from() -> None:
    """Without [train] a job has the recipe of its table, which a single key would replace."""
    job = JOB[: JOB.index("[train]")]
    assert "train init writes one" in faults("[search.network]\nlayers = { choice = [[4], [8]] }", job)["train"]


def test_at_most_fifty_parameters() -> None:
    weights: dict[str, Any] = {f"c{i}": {"uniform": [1, 2]} for i in range(51)}
    found = parse_space({"train": {"class_weights": weights}})
    assert isinstance(found, dict)
    assert "at most 50 parameters" in str(found)


def test_the_job_without_search_is_what_is_recorded() -> None:
    """So `train` gives the same bytes whether or not the file has a search."""
    searched = from_dict(parse_toml(JOB + "[search.train]\nepochs = { integer = [1, 3] }"), Path()).settings
    assert searched.as_dict() == from_dict(parse_toml(JOB), Path()).settings.as_dict()
