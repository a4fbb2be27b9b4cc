"""Words for true and false: a category of two such words has the same meaning in every spelling of them.

The words of one language stand together, since a word such as "no" or "da" is not the same in all.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple


class BooleanWords(NamedTuple):
    """The words for true and for false of a language, in lower case."""

    true: tuple[str, ...]
    false: tuple[str, ...]

    def of(self, value: bool) -> tuple[str, ...]:
        return self.true if value else self.false


ENGLISH = BooleanWords(("true", "yes", "t", "y", "on"), ("false", "no", "f", "n", "off"))
_LANGUAGES = (  # no single letters but of English: S and N may be south and north
    ENGLISH,
    BooleanWords(("ja", "wahr", "true"), ("nein", "falsch", "false")),  # German
    BooleanWords(("oui", "vrai", "true"), ("non", "faux", "false")),  # French
    BooleanWords(("sí", "si", "verdadero", "true"), ("no", "falso", "false")),  # Spanish
    BooleanWords(("sì", "si", "vero", "true"), ("no", "falso", "false")),  # Italian
    BooleanWords(("sim", "verdadeiro", "true"), ("não", "nao", "falso", "false")),  # Portuguese
    BooleanWords(("ja", "waar", "true"), ("nee", "onwaar", "false")),  # Dutch
    BooleanWords(("ja", "true"), ("nej", "nei", "false")),  # Danish, Norwegian, Swedish
    BooleanWords(("tak", "prawda", "true"), ("nie", "fałsz", "false")),  # Polish
    BooleanWords(("ano", "áno", "pravda", "true"), ("ne", "nie", "nepravda", "false")),  # Czech, Slovak
    BooleanWords(("evet", "doğru", "true"), ("hayır", "hayir", "yanlış", "false")),  # Turkish
    BooleanWords(("да", "истина", "true"), ("нет", "ложь", "false")),  # Russian
    BooleanWords(("はい", "true"), ("いいえ", "false")),  # Japanese
    BooleanWords(("是", "true"), ("否", "false")),  # Chinese
)


def find_boolean_words(categories: Collection[str]) -> BooleanWords | None:
    """Return the words of the first language that all categories are words of, in upper or lower case, else None."""
    lower = {category.lower() for category in categories}
    return next((words for words in _LANGUAGES if lower <= {*words.true, *words.false}), None)
