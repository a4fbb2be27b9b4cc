"""The types of the parameters of `train`, and the options that its commands share."""

from __future__ import annotations

import re
from typing import Any

import click

from model_store.utils.toml import MAX_DEPTH, TomlError, parse_toml


class OverrideType(click.ParamType[tuple[str, Any]]):
    """`section.key=value`: the value is TOML, or a string if it is not valid TOML. `section.key=` removes the key."""

    name = "section.key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        location, equals, text = str(value).partition("=")
        if not equals or "." not in location or not all(location.split(".")):
            self.fail(f"expected section.key=value, such as train.epochs=5; found {value!r}", param, ctx)
        if not text:
            return location.strip(), None
        if location.count(".") > MAX_DEPTH:
            self.fail(f"expected section.key=value, found a key of {location.count('.') + 1} parts", param, ctx)
        try:
            parsed = parse_toml(f"value = {text}")
        except TomlError:
            parsed = {}
        return location.strip(), parsed["value"] if parsed.keys() == {"value"} else text


class FoldsType(click.ParamType[tuple[int, int]]):
    """`K`, or `KxN` for N repetitions."""

    name = "folds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", str(value))
        if found is None or int(found[1]) < 2 or found[2] in ("0", "00"):
            self.fail(
                f"expected a number of at least 2, such as 5, or 5x3 for 3 repetitions; found {value}", param, ctx
            )
        return int(found[1]), int(found[2] or 1)


overrides_option = click.option(
    "--set",
    "overrides",
    type=OverrideType(),
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Override a key of the job: train.epochs=5. An empty value removes it: train.epochs=. Repeatable.",
)
seed_option = click.option("--seed", type=int, metavar="N", help="Same as --set train.seed=N.")
