"""The schema of a job file's `[search]` section: what `train sweep` tries."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, combinations, islice
from typing import Any

from marshmallow import ValidationError, fields, post_load, validates_schema

from model_store.errors import Fault, did_you_mean
from training.config.defaults import METRIC_DIRECTIONS
from training.config.fields import (
    SECTION_SCHEMAS,
    ChoiceField,
    SectionSchema,
    flatten_messages,
    integer_field,
    number_field,
)
from training.config.search_space import SEARCHED_SECTIONS, SearchSpace, parse_space, value_text
from training.config.settings import SearchSection
from training.config.toml_loader import set_key
from training.errors import JobError

PRUNING = ("median", "hyperband", "none")
_MAX_CANDIDATES = 128  # of sets of values that are checked before the first trial
_SECTION_EXAMPLE = "[search.train] with learning_rate = { log_uniform = [0.001, 0.1] }"


class SearchSchema(SectionSchema):
    settings_class = SearchSection
    trials = integer_field(1, 100_000)
    timeout = number_field("a number of seconds above 0", lambda seconds: seconds > 0)
    metric = ChoiceField(("loss", *METRIC_DIRECTIONS))
    pruning = ChoiceField(PRUNING)
    folds = integer_field(2, 20)
    data = fields.Raw()
    network = fields.Raw()
    train = fields.Raw()

    def suggest_key(self, key: str) -> str:
        """Suggest a key or section for an unknown key."""
        owners = [name for name in SEARCHED_SECTIONS if key in SECTION_SCHEMAS[name]._declared_fields]
        if owners:
            return f"it belongs in [search.{owners[0]}]"
        return did_you_mean(key, self.fields) or f"known keys: {', '.join(self.fields)}"

    @validates_schema(skip_on_field_errors=False)
    def _check_space(self, data: dict[str, Any], **_: Any) -> None:
        template = {name: data[name] for name in SEARCHED_SECTIONS if name in data}
        if not template:
            raise ValidationError([Fault("", "expected keys to search, found none", f"write {_SECTION_EXAMPLE}")])
        found = parse_space(template)
        if not isinstance(found, SearchSpace):
            raise ValidationError(found)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> SearchSection:
        template = {name: data.pop(name) for name in SEARCHED_SECTIONS if name in data}
        space = parse_space(template)
        if not isinstance(space, SearchSpace):  # _check_space has raised its faults
            raise TypeError(f"expected a search space, found {space}")
        return SearchSection(**data, space=space)


def check_search(job: Mapping[str, Any], space: SearchSpace, load: Callable[[Mapping[str, Any]], Any]) -> list[Fault]:
    """Return the faults of the jobs at the borders of the space; `load` raises ValidationError, as the job's schema.

    job: the content of the job file, which is valid without its search.
    """
    faults: dict[str, Fault] = {}
    if not isinstance(job.get("train"), Mapping):
        problem = "missing; a search starts from the training that the job describes"
        faults["train"] = Fault("train", problem, "write [train]; train init writes one")
        return list(faults.values())
    if job["search"].get("folds") is not None and ("ensemble" in job["train"] or "train.ensemble" in space.parameters):
        problem = "the networks of an ensemble hold out each row once already"
        return [Fault("search.folds", problem, "remove it, or train.ensemble")]
    for values, varied in _candidates(space):
        try:
            load(with_overrides(job, space.overrides(values)))
            continue
        except ValidationError as error:
            found = list(flatten_messages(error.messages))
        except JobError as error:
            found = error.faults
        for fault in found:
            location = f"search.{fault.location}"
            others = [f"{name} = {value_text(values[name])}" for name in varied if name != fault.location]
            problem = f"{fault.problem} (with {', '.join(others)})" if others else fault.problem
            faults.setdefault(location, Fault(location, problem, fault.fix))
    return list(faults.values())


def _candidates(space: SearchSpace) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
    """Yield sets of values that cover the borders of the space, and the names of the parameters that they vary.

    First each parameter's extremes, then pairs of them; the others have their first value.
    """
    extremes = {name: one.extremes for name, one in space.parameters.items()}
    first = {name: values[0] for name, values in extremes.items()}
    single = ((first | {name: value}, (name,)) for name, values in extremes.items() for value in values[1:])
    pairs = (
        (first | {name: value, other: other_value}, (name, other))
        for name, other in combinations(extremes, 2)
        for value in extremes[name][1:]
        for other_value in extremes[other][1:]
    )
    yield from islice(chain([(first, ())], single, pairs), _MAX_CANDIDATES)


def with_overrides(job: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a job file's content with keys set by location, and without `[search]`."""
    content: dict[str, Any] = copy.deepcopy({name: section for name, section in job.items() if name != "search"})
    for location, value in overrides.items():
        set_key(content, location, copy.deepcopy(value))
    return content
