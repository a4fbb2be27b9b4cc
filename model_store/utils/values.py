"""Checks of untrusted values, and short descriptions of them for error messages."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model_store.similar_names import MAX_WORD, closest_name

# A name of a model or an alias: it is a path segment in a store, in a URL and in a key of a bucket.
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"

_NAME = re.compile(NAME_PATTERN)
_MAX_CHARACTERS = 60  # of a description
_MAX_NAME = 100  # characters of a name in a list
_MAX_ITEMS = 8  # of a list that is written out


def parse_texts(parse: Callable[[str], Any], texts: Iterable[str], known: dict[str, Any]) -> None:
    """Add to `known` what each other text means: a small compressed body may repeat one a million times."""
    known.update((text, parse(text)) for text in dict.fromkeys(texts) if text not in known)


def is_name(value: Any) -> bool:
    """Return True for a valid name of a model or an alias."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def is_finite_number(value: Any) -> bool:
    """Return True for a finite number of Python or NumPy that fits float64; booleans are not numbers."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond float64
        return False


def parse_finite_number(text: str) -> float | None:
    """Return the finite number that `text` spells, else None. Underscores and non-ASCII digits are rejected."""
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def parse_number(text: str) -> float | None:
    """Return the number that `text` spells, infinite or NaN too, else None."""
    try:
        return float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None


def describe_value(value: Any) -> str:
    """Return a value as JSON would write it, in at most 60 characters; objects and longer lists are only counted."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        if len(value) <= _MAX_ITEMS and not any(isinstance(item, (list, tuple, dict)) for item in value):
            text = f"[{', '.join(map(describe_value, value))}]"
            if len(text) <= _MAX_CHARACTERS:
                return text
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    try:
        text = repr(value)
    except ValueError:  # an integer too long for Python to print
        return "an integer of thousands of digits"
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 3] + "..."


def list_names(names: Sequence[object], limit: int = 12) -> str:
    """Return names separated by commas: the first `limit`, long ones cut, and the count if there are more."""
    shown = (name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}..." for name in map(str, names[:limit]))
    text = ", ".join(shown)
    return f"{text}, ... ({len(names)} in total)" if len(names) > limit else text


def exact_unit(values: npt.NDArray[Any]) -> float:
    """Return 1, or a power of two to divide numbers by whose squares would overflow or underflow. No bit is lost."""
    largest = max(abs(float(values.min())), abs(float(values.max())))
    if largest > 2.0**500:
        return 2.0**600
    return 2.0**-600 if 0 < largest < 2.0**-400 else 1.0


def round_to_digits(values: npt.NDArray[Any], digits: int) -> npt.NDArray[Any]:
    """Return finite numbers rounded to significant digits; those below 1e-300 become 0."""
    exponents = np.floor(np.log10(np.abs(np.where(values == 0, 1.0, values))))
    places = np.clip(digits - 1 - exponents, -300, 300)
    down, up = 10.0 ** np.maximum(places, 0), 10.0 ** np.maximum(-places, 0)
    rounded: npt.NDArray[Any] = np.rint(values * down / up) / down * up
    return rounded


def integral_floats_to_ints(row: Sequence[Any]) -> list[Any]:
    """Return a row whose integral floats are integers: 195 instead of 195.0."""
    return [
        int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value for value in row
    ]


def nearest_name(word: Any, known: Sequence[str]) -> str:
    """Return the most similar known word, or the word itself."""
    text = str(word)[:MAX_WORD]
    return closest_name(text, known) or text


def limit_nesting(value: Any, levels: int) -> Any:
    """Return JSON data with "..." in place of the lists and objects below so many levels."""
    if not isinstance(value, (list, dict)):
        return value
    if not levels:
        return "..."
    if isinstance(value, list):
        return [limit_nesting(item, levels - 1) for item in value]
    return {key: limit_nesting(item, levels - 1) for key, item in value.items()}


def flatten_lists(value: Any, max_levels: int) -> list[Any]:
    """Flatten nested lists, up to so many levels."""
    leaves = value if isinstance(value, list) else []
    for _ in range(max_levels):
        if not any(type(leaf) is list for leaf in leaves):
            break
        leaves = [each for leaf in leaves for each in (leaf if type(leaf) is list else [leaf])]
    return leaves
