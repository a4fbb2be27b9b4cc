"""Number formatting for people, in reports, tables and messages; and the display names of metrics."""

from __future__ import annotations

import math

METRIC_TITLES = {
    "exact_match": "exact match",
    "hamming_loss": "Hamming loss",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "roc_auc": "ROC area",
    "log_loss": "log loss",
    "support": "rows",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "poisson_deviance": "Poisson deviance",
    "gamma_deviance": "gamma deviance",
    "pinball_loss": "pinball loss",
    "d2": "D²",
    "coverage": "coverage",
}
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def format_number(value: float | None, digits: int = 4) -> str:
    """Return a number with `digits` significant digits; powers of ten from a billion on and below 0.0001."""
    if value is None:
        return "–"
    if isinstance(value, int) and abs(value) < 10**15:
        return format_grouped(value)
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    exponent = int(power)
    if not -4 <= exponent <= 8:
        return f"{_without_trailing_zeros(mantissa.replace('-', '−'))} × 10{str(exponent).translate(_SUPERSCRIPTS)}"
    return _without_trailing_zeros(format_grouped(value, max(0, digits - 1 - exponent)))


def format_grouped(value: float, decimals: int = 0) -> str:
    """Return a number with thousands separators from 10,000 on (four digits are often a year) and a true minus sign."""
    plain = f"{value:.{decimals}f}"
    whole = plain.lstrip("-").partition(".")[0]
    return (plain if len(whole) < 5 else f"{value:,.{decimals}f}").replace("-", "−")


def format_percent(share: float | None, digits: int = 1) -> str:
    """Return a share of 1 as a percentage. Only all is shown as 100 %, and only nothing as 0 %."""
    if share is None:
        return "–"
    shown, step = f"{100 * share:.{digits}f}", 10.0**-digits
    if 0 < share < 1 and float(shown) in (0, 100):
        return f"<{step:.{digits}f} %" if float(shown) == 0 else f">{100 - step:.{digits}f} %"
    return f"{shown} %".replace("-", "−")


def format_score(score: float | None, decimals: int) -> str:
    """Return a score of at most 1 with so many decimals. A score below 1 is not shown as 1."""
    if score is None:
        return "–"
    shown = min(score, 1 - 10.0**-decimals) if score < 1 else score
    return f"{shown:z.{decimals}f}".replace("-", "−")  # without the minus of a score that is rounded to 0


def _without_trailing_zeros(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
