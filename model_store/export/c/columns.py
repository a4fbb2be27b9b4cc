"""Columns as C: `encode_number` and `encode_text`, which turn a raw value into features as the signature does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from model_store.export.base import ExportError
from model_store.export.c import literals
from model_store.export.c.code import Code
from model_store.export.c.literals import number
from model_store.schema.columns import ArrayColumn, CategoryColumn, Column, DateColumn, NumberColumn, TextColumn
from model_store.schema.columns.date import CYCLES
from model_store.schema.columns.text import MAX_HASHED_CHARACTERS
from model_store.schema.signature import Signature
from model_store.utils.text_hashing import word_characters

_TEXT_KINDS = (CategoryColumn, TextColumn)
_SCALED = """\
/* (value - offset) / scale */
static int encode_scaled(double value, double offset, double scale, real *feature) {
    *feature = (real)((value - offset) / scale);
    return isfinite(*feature) ? ENCODED : TOO_LARGE;
}
"""
_COMPRESS = """\
/* asinh(value / width): linear up to the width, logarithmic above */
static double compress(double value, double width) {
    double quotient = value / width;
    if (isnan(quotient)) return quotient;
    return asinh(quotient < -DBL_MAX ? -DBL_MAX : quotient > DBL_MAX ? DBL_MAX : quotient);
}
"""
_CYCLE = """\
/* sin and cos of the time of a day, a week or a year */
static void encode_cycle(double seconds, double period, real *features) {
    double rest = fmod(seconds, period);
    double angle = 2 * 3.141592653589793 * (rest < 0 ? rest + period : rest) / period;
    features[0] = (real)sin(angle);
    features[1] = (real)cos(angle);
}
"""
_UTF_8 = """\
static const uint32_t INVALID = 0x110000; /* above all characters */

/* Reads one character of UTF-8, and moves *text behind it; INVALID if there is none. */
static uint32_t next_character(const char **text) {
    const unsigned char *byte = (const unsigned char *)*text;
    uint32_t code = *byte++;
    int more = code < 0x80 ? 0 : code < 0xC0 ? -1 : code < 0xE0 ? 1 : code < 0xF0 ? 2 : code < 0xF8 ? 3 : -1;
    if (more < 0) return INVALID;
    if (more > 0) code &= 0x3Fu >> more;
    for (int i = 0; i < more; i++) {
        if ((*byte & 0xC0) != 0x80) return INVALID;
        code = code << 6 | (*byte++ & 0x3F);
    }
    *text = (const char *)byte;
    return code;
}

static int is_space(uint32_t c) {
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

static char to_small(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Removes spaces around the text, and returns its length in bytes: 0 if it means a missing value. */
static size_t trim(const char **text) {
    static const char *const missing[] = {"na", "n/a", "nan", "null", "\\?"};
    const char *start = *text, *end = start, *next = start;
    int begun = 0;
    while (*next) {
        uint32_t c = next_character(&next);
        if (c == INVALID) next++;
        if (is_space(c)) {
            if (!begun) start = end = next;
        } else {
            begun = 1;
            end = next;
        }
    }
    *text = start;
    size_t length = (size_t)(end - start);
    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++) {
        size_t j = 0;
        while (j < length && missing[i][j] && to_small(start[j]) == missing[i][j]) j++;
        if (j == length && !missing[i][j]) return 0;
    }
    return length;
}
"""
_CATEGORY = """\
typedef struct {
    const char *text;
    uint32_t code;
} category;

static long find_category(const char *text, size_t length, const category *known, size_t count) {
    size_t low = 0;
    while (low < count) { /* by binary search: the texts are sorted by their bytes */
        size_t middle = low + (count - low) / 2;
        int order = strncmp(text, known[middle].text, length);
        if (order == 0 && known[middle].text[length]) order = -1;
        if (order == 0) return (long)known[middle].code;
        if (order < 0) count = middle;
        else low = middle + 1;
    }
    return -1;
}

/* The code of a category: that of `missing` for NULL and for texts that mean a missing value, -1 if there is none. */
static long category_code(const char *text, const category *known, size_t count, long missing, long unknown) {
    long code;
    size_t length;
    if (text == NULL) return missing;
    code = find_category(text, strlen(text), known, count);
    if (code >= 0) return code;
    length = trim(&text);
    if (length == 0) return missing;
    code = find_category(text, length, known, count);
    return code >= 0 ? code : unknown;
}
"""
_HASH = """\
enum { CAPITAL_SIGMA = 0x3A3, CAPITAL_I_WITH_DOT = 0x130, DOT_ABOVE = 0x307 };

static uint32_t crc_32(uint32_t state, uint32_t c) { /* of the UTF-8 of a character */
    unsigned char bytes[4];
    size_t count = 0;
    if (c < 0x80) bytes[count++] = (unsigned char)c;
    else {
        if (c < 0x800) bytes[count++] = (unsigned char)(0xC0 | c >> 6);
        else {
            if (c < 0x10000) bytes[count++] = (unsigned char)(0xE0 | c >> 12);
            else {
                bytes[count++] = (unsigned char)(0xF0 | c >> 18);
                bytes[count++] = (unsigned char)(0x80 | (c >> 12 & 0x3F));
            }
            bytes[count++] = (unsigned char)(0x80 | (c >> 6 & 0x3F));
        }
        bytes[count++] = (unsigned char)(0x80 | (c & 0x3F));
    }
    for (size_t i = 0; i < count; i++) {
        state ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) state = state >> 1 ^ (state & 1 ? 0xEDB88320u : 0);
    }
    return state;
}

static void add_token(uint32_t state, real *features, uint32_t count) {
    uint32_t hash = state ^ 0xFFFFFFFFu;
    features[hash % count] += hash >> 31 ? -1 : 1;
}

static int is_word(uint32_t c) {
    size_t low = 0, high = sizeof word_ranges / sizeof *word_ranges / 2;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (c < word_ranges[2 * middle]) high = middle;
        else if (c > word_ranges[2 * middle + 1]) low = middle + 1;
        else return 1;
    }
    return 0;
}

static uint32_t to_lower(uint32_t c) {
    for (size_t i = 0; i < sizeof lower_ranges / sizeof *lower_ranges; i += 4)
        if (c >= lower_ranges[i] && c <= lower_ranges[i + 1])
            return (c - lower_ranges[i]) % lower_ranges[i + 2] ? c : c + lower_ranges[i + 3];
    return c;
}

/* The words and the trigrams of their characters, each hashed into one of the features; divided by their norm. */
static int encode_hashed(const char *text, uint32_t count, real *features) {
    double squares = 0;
    size_t length = 0, characters = 0;
    int dot = 0;
    uint32_t word = 0, before = 0, last = 0; /* the hash of the word so far, and its last two characters */
    for (uint32_t i = 0; i < count; i++) features[i] = 0;
    if (text != NULL) length = trim(&text);
    const char *end = text + length;
    while (last || dot || text < end) {
        uint32_t c = 0;
        if (dot) c = DOT_ABOVE;
        else if (text < end && characters++ < MAX_CHARACTERS) c = next_character(&text);
        else text = end;
        if (c == INVALID || c == CAPITAL_SIGMA) return NOT_A_TEXT; /* a sigma's lower case depends on its place */
        dot = c == CAPITAL_I_WITH_DOT; /* its lower case is two characters */
        c = dot ? 'i' : to_lower(c);
        if (is_word(c)) {
            if (!last) word = crc_32(crc_32(0xFFFFFFFFu, 'w'), ' ');
            else add_token(crc_32(crc_32(crc_32(0xFFFFFFFFu, before), last), c), features, count);
            word = crc_32(word, c);
            before = last ? last : ' ';
            last = c;
        } else if (last) {
            add_token(crc_32(crc_32(crc_32(0xFFFFFFFFu, before), last), ' '), features, count);
            add_token(word, features, count);
            last = 0;
        }
    }
    for (uint32_t i = 0; i < count; i++) squares += (double)features[i] * features[i];
    for (uint32_t i = 0; i < count && squares > 0; i++) features[i] = (real)(features[i] / sqrt(squares));
    return ENCODED;
}
"""


class EncodingCode(NamedTuple):
    """The C of an encoding, and the identifiers of the columns; none for an array, whose values have numbers."""

    text: str
    columns: list[str]


def add_encoding(code: Code, signature: Signature) -> EncodingCode:
    """Return the C that encodes raw values. ExportError names a column that has no form in C."""
    columns = signature.inputs
    first = [0, *accumulate(column.width for column in columns)]
    names = literals.identifiers("COLUMN_", signature.names)
    helpers: dict[str, str] = {}
    if isinstance(columns[0], ArrayColumn):
        return EncodingCode(_array_function(columns[0], helpers), [])
    numbers: list[str] = []
    texts: list[str] = []
    for column, name, start in zip(columns, names, first, strict=False):
        write = _COLUMNS.get(type(column))
        if write is None:
            raise ExportError(f"column {column.name}: expected a kind that C has, found {column.kind}")
        try:
            lines = write(code, column, f"{name.lower()}_", start, helpers)
        except ValueError as e:
            raise ExportError(f"column {column.name}: {e}") from e
        body = "".join(f"        {line}\n" for line in lines)
        case = f"    case {name}:\n{body}"
        (texts if isinstance(column, _TEXT_KINDS) else numbers).append(case)
    parts = list(helpers.values())
    if numbers:
        parts.append(_NUMBER_HEAD + _switch(numbers))
    if texts:
        parts.append(_TEXT_HEAD + _switch(texts))
    return EncodingCode("\n".join(parts), names)


_NUMBER_HEAD = """\
/* Encodes a number, or a time as seconds since 1970 in UTC, into the features of its column; NAN is a missing value. */
int encode_number(int column, double value, real *input) {
"""
_TEXT_HEAD = """\
/* Encodes a text in UTF-8 into the features of its column; NULL, and texts such as "" and "NA", are missing. */
int encode_text(int column, const char *text, real *input) {
"""


def _switch(cases: Sequence[str]) -> str:
    return f"    switch (column) {{\n{''.join(cases)}    default:\n        return NOT_A_COLUMN;\n    }}\n}}\n"


def _array_function(column: ArrayColumn, helpers: dict[str, str]) -> str:
    helpers["scaled"] = _SCALED
    low = "" if column.low is None else f" || value < {number(column.low)}"
    high = "" if column.high is None else f" || value > {number(column.high)}"
    shape = " x ".join(map(str, column.shape))
    return _SCALED + (
        f"\n/* Encodes one value of the array of {shape} values; its index counts the last dimension first. */\n"
        "int encode_number(int index, double value, real *input) {\n"
        "    if (index < 0 || index >= INPUTS) return NOT_A_COLUMN;\n"
        "    if (isnan(value)) return VALUE_MISSING;\n"
        f"    if (!isfinite(value){low}{high}) return TOO_LARGE;\n"
        f"    return encode_scaled(value, {number(column.offset)}, {number(column.scale)}, input + index);\n"
        "}\n"
    )


def _missing(column: NumberColumn | DateColumn, indicator: int) -> list[str]:
    """Return the lines that replace a missing value, or reject it."""
    if column.fill is None:
        return ["if (isnan(value)) return VALUE_MISSING;"]
    lines = [f"input[{indicator}] = (real)(isnan(value) ? 1 : 0);"] if column.indicator else []
    return [*lines, f"if (isnan(value)) value = {number(column.fill)};"]


def _number(code: Code, column: NumberColumn, name: str, start: int, helpers: dict[str, str]) -> list[str]:
    del code, name
    helpers["scaled"] = _SCALED
    lines = ["if (isinf(value)) return TOO_LARGE;", *_missing(column, start + 1)]
    if column.linear_width is not None:
        helpers["compress"] = _COMPRESS
        lines.append(f"value = compress(value, {number(column.linear_width)});")
    return [*lines, f"return encode_scaled(value, {number(column.offset)}, {number(column.scale)}, input + {start});"]


def _date(code: Code, column: DateColumn, name: str, start: int, helpers: dict[str, str]) -> list[str]:
    del code, name
    helpers["scaled"] = _SCALED
    lines = ["if (isinf(value)) return TOO_LARGE;", *_missing(column, start + column.width - 1)]
    for i, cycle in enumerate(column.cycles):
        helpers["cycle"] = _CYCLE
        lines.append(f"encode_cycle(value, {number(CYCLES[cycle])}, input + {start + 1 + 2 * i});")
    return [*lines, f"return encode_scaled(value, {number(column.offset)}, {number(column.scale)}, input + {start});"]


def _category(code: Code, column: CategoryColumn, name: str, start: int, helpers: dict[str, str]) -> list[str]:
    helpers["utf-8"] = _UTF_8
    helpers["category"] = _CATEGORY
    codes = column.code_by_text
    known = sorted((text.encode(), index) for text, index in codes.items())
    items = ",\n    ".join(f"{{{literals.string(text.decode())}, {index}}}" for text, index in known)
    helpers[name] = f"static const category {name}codes[] = {{\n    {items}}};\n"
    code.constant_bytes += sum(len(text) + 1 + 8 for text, _ in known)
    missing = -1 if column.fill is None else codes.get(column.fill, len(column.categories))
    unknown = len(column.categories) if column.unknown == "bucket" else -1
    lines = [
        "{",
        f"    long code = category_code(text, {name}codes, {len(known)}, {missing}, {unknown});",
        "    if (code < 0) return text == NULL ? VALUE_MISSING : UNKNOWN_CATEGORY;",
    ]
    if column.encoding == "code":
        lines.append(f"    input[{start}] = (real)code;")
    else:
        lines.append(f"    for (long i = 0; i < {column.codes}; i++) input[{start} + i] = i == code ? 1 : 0;")
    return [*lines, "    return ENCODED;", "}"]


def _text(code: Code, column: TextColumn, name: str, start: int, helpers: dict[str, str]) -> list[str]:
    del name
    helpers["utf-8"] = _UTF_8
    if "hash" not in helpers:
        words, lower = _word_ranges(), _lower_ranges()
        code.constant_bytes += 4 * (len(words) + len(lower))
        limits = f"enum {{ MAX_CHARACTERS = {MAX_HASHED_CHARACTERS} }};"
        helpers["hash"] = "\n".join(
            [
                "/* The characters of words, from and to; and those with a lower case: from, to, step, difference. */",
                literals.array("uint32_t", "word_ranges", words) + literals.array("uint32_t", "lower_ranges", lower),
                f"{limits}\n\n{_HASH}",
            ]
        )
    lines = []
    if column.fill is None:
        lines = ["if (text == NULL) return VALUE_MISSING;", "{", "    const char *start = text;"]
        lines += ["    if (trim(&start) == 0) return VALUE_MISSING;", "}"]
    return [*lines, f"return encode_hashed(text, {column.features}, input + {start});"]


def _word_ranges() -> list[int]:
    """Return the first and the last character of each range of characters of words."""
    is_word = np.concatenate([[False], word_characters(), [False]]).astype(np.int8)
    changes = np.flatnonzero(np.diff(is_word))
    changes[1::2] -= 1
    return [int(code) for code in changes]


def _lower_ranges() -> list[int]:
    """Return the ranges of characters with a lower case: first, last, step and difference, modulo 2³²."""
    found: list[list[int]] = []
    for code in range(sys.maxunicode + 1):
        lower = chr(code).lower()
        if len(lower) != 1 or ord(lower) == code:
            continue
        difference = (ord(lower) - code) % 2**32
        previous = found[-1] if found else None
        if previous is not None and previous[3] == difference:
            step = code - previous[1]
            if step in (1, 2) and (previous[0] == previous[1] or previous[2] == step):
                previous[1:3] = [code, step]
                continue
        found.append([code, code, 1, difference])
    return [value for one in found for value in one]


_COLUMNS: Mapping[type[Column], Callable[[Code, Any, str, int, dict[str, str]], list[str]]] = {
    NumberColumn: _number,
    DateColumn: _date,
    CategoryColumn: _category,
    TextColumn: _text,
}
