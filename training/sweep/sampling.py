"""The choice of the next set of values: by Optuna's TPE sampler, and never one that was tried before.

The sampler sees a copy of the study and has a seed of its own for each trial, so that one process alone tries the same
sets in the same order, also after it was interrupted.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from training.config.search_space import Choice, Distribution, Range, SearchSpace, value_text

_DRAWS = 10  # of TPE, before a set is chosen at random
_MAX_LISTED = 1_000_000  # sets of values
_SAMPLER_KEY = 8  # of the generators of a job, after those of its networks


class SpaceCodec:
    """The space of a job as Optuna knows it: options of a choice are their JSON texts."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.distributions: dict[str, BaseDistribution] = {
            name: _encode_distribution(one) for name, one in space.parameters.items()
        }
        self._options = {
            name: {value_text(option): option for option in one.options}
            for name, one in space.parameters.items()
            if isinstance(one, Choice)
        }

    def encode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values of the job as the study has them."""
        return {name: self._encode(name, value) for name, value in values.items()}

    def decode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return values of the study as the job has them."""
        return {name: self._options[name][value] if name in self._options else value for name, value in params.items()}

    def rounded(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return values of the study with those of steps as the space lists them, so that equal sets are equal."""
        space = self.space.parameters
        return {
            name: one.nearest(value) if isinstance(one := space[name], Range) else value
            for name, value in params.items()
        }

    def _encode(self, name: str, value: Any) -> Any:
        if name in self._options:
            return value_text(value)
        return float(value) if isinstance(self.distributions[name], FloatDistribution) else value


def _encode_distribution(distribution: Distribution) -> BaseDistribution:
    if isinstance(distribution, Choice):
        return CategoricalDistribution(tuple(map(value_text, distribution.options)))
    low, high, log, step = distribution.low, distribution.high, distribution.log, distribution.step
    if distribution.integer:
        return IntDistribution(int(low), int(high), log, int(step or 1))
    return FloatDistribution(float(low), float(high), log, step)


def params_key(params: Mapping[str, Any]) -> str:
    """Return a text that is equal for equal sets of values."""
    return value_text(dict(params))


def draw(
    codec: SpaceCodec,
    trials: Sequence[FrozenTrial],
    tried: Collection[str],
    seed: int,
    study: tuple[str, StudyDirection, BasePruner],
) -> dict[str, Any] | None:
    """Return the values of the next trial, as the study has them; None if all sets were tried.

    tried: the keys of all sets in `trials`.
    study: its name, direction and pruner; Hyperband draws for each of its brackets by itself.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(_SAMPLER_KEY, len(trials)))
    name, direction, pruner = study
    sampler = optuna.samplers.TPESampler(seed=int(sequence.generate_state(1)[0]), constant_liar=True)
    copy = optuna.create_study(study_name=name, direction=direction, sampler=sampler, pruner=pruner)
    copy.add_trials(trials)
    for _ in range(_DRAWS):
        params = codec.rounded(copy.ask(codec.distributions).params)
        if params_key(params) not in tried:
            return params
    return _draw_at_random(codec, tried, np.random.default_rng(sequence))


def _draw_at_random(codec: SpaceCodec, tried: Collection[str], rng: np.random.Generator) -> dict[str, Any] | None:
    size, names = codec.space.size, list(codec.distributions)
    if size is None or size > _MAX_LISTED:
        raise RuntimeError("expected untried values in a large space, found none in 10 draws")
    values = (one.values or [] for one in codec.space.parameters.values())
    every = (codec.encode(dict(zip(names, found, strict=True))) for found in itertools.product(*values))
    left = [params for params in every if params_key(params) not in tried]
    return left[int(rng.integers(len(left)))] if left else None
