"""Units that a column of numbers mixes, such as kg and g or $1.2M and $300K: the factor of each to one of them."""

from __future__ import annotations

from collections.abc import Mapping

MAX_UNITS = 12  # of a column

# Each dimension by its usual base: names in lower case, and how many of the base one of it is.
_DIMENSIONS: tuple[Mapping[str, float], ...] = (
    {"g": 1, "kg": 1000, "mg": 0.001, "µg": 1e-6, "ug": 1e-6, "t": 1e6, "lb": 453.59237, "lbs": 453.59237,
     "oz": 28.349523125},
    {"m": 1, "km": 1000, "cm": 0.01, "mm": 0.001, "in": 0.0254, "ft": 0.3048, "yd": 0.9144, "mi": 1609.344,
     "miles": 1609.344},
    {"l": 1, "ml": 0.001, "cl": 0.01, "dl": 0.1, "hl": 100},
    {"m²": 1, "km²": 1e6, "cm²": 1e-4, "ha": 1e4},
    {"s": 1, "sec": 1, "secs": 1, "ms": 0.001, "min": 60, "mins": 60, "h": 3600, "hr": 3600, "hrs": 3600, "hour": 3600,
     "hours": 3600, "d": 86_400, "day": 86_400, "days": 86_400, "week": 604_800, "weeks": 604_800},
    {"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12},
    {"w": 1, "kw": 1e3, "mw": 1e6},
    {"hz": 1, "khz": 1e3, "mhz": 1e6, "ghz": 1e9},
)  # fmt: skip
_MAGNITUDES: Mapping[str, float] = {
    "k": 1e3, "thousand": 1e3, "m": 1e6, "mn": 1e6, "mio": 1e6, "million": 1e6, "b": 1e9, "bn": 1e9, "mrd": 1e9,
    "billion": 1e9,
}  # fmt: skip
_CODES_OF_CURRENCIES = {
    "$": {"usd", "cad", "aud"},
    "€": {"eur"},
    "£": {"gbp"},
    "¥": {"jpy", "cny"},
    "₹": {"inr", "rs", "rs."},
}


def combine_units(
    units: Mapping[str, int], currencies: set[str], *, plain: bool
) -> tuple[str, dict[str, float]] | None:
    """Return the unit that a column's numbers are converted to, and the factors of the others; None if there is none.

    units: how often each occurs, in lower case; `currencies` are those that stand before a number. The one that occurs
    most often is kept.
    plain: whether some numbers have no unit, which is 1 beside k and M, and unknown beside kg and g.
    """
    if len(units) > MAX_UNITS:
        return None
    codes = currencies.union(*_CODES_OF_CURRENCIES.values())
    money = [unit for unit in units if unit in codes]
    magnitudes = {unit: _MAGNITUDES[unit] for unit in units if unit in _MAGNITUDES}
    if len(money) + len(magnitudes) == len(units) and (money or len(magnitudes) > 1):
        symbol = next((unit for unit in money if unit in currencies), money[0] if money else "")
        if all(unit == symbol or unit in _CODES_OF_CURRENCIES.get(symbol, ()) for unit in money):
            return symbol, {**{unit: 1.0 for unit in money if unit != symbol}, **magnitudes}
    dimension = next((found for found in _DIMENSIONS if units.keys() <= found.keys()), None)
    if dimension is None or plain:
        return None
    base = min(units, key=lambda unit: (-units[unit], list(dimension).index(unit)))
    return base, {unit: dimension[unit] / dimension[base] for unit in units if unit != base}
