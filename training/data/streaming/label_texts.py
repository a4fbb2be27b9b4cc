"""Texts of several labels in a stream, such as "action|comedy": which labels there are, and a flag for each of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.data.multi_label import MAX_LABELS, check_label_texts, missing_label_note, split_labels
from training.data.streaming.source import DataSource, DictionaryColumn, as_texts


@dataclass(frozen=True)
class LabelTexts:
    """How a target column of texts is read: what separates the labels, and all labels, sorted."""

    separator: str
    labels: tuple[str, ...]

    def flags(self, column: DictionaryColumn) -> NDArray[np.uint8]:
        """Return 1 for each label that a row has, else 0: (n, labels). Each text is split once."""
        index = {label: i for i, label in enumerate(self.labels)}
        used = np.unique(column.codes)
        flags = np.zeros((len(used), len(self.labels)), np.uint8)
        for row, code in enumerate(used.tolist()):
            flags[row, [index[label] for label in split_labels(column.values[code], self.separator)]] = 1
        return flags.take(np.searchsorted(used, column.codes), axis=0)


def find_label_texts(source: DataSource, separator: str) -> LabelTexts:
    """Read the target column of a source to its end, and add a note on cells without labels.

    DataError if there are fewer than two labels or too many, or no cell with two of them.
    """
    (target,) = source.target_names
    found: set[str] = set()
    are_several, missing = False, 0
    for batch in replace(source, kinds={}, extra={}).batches():
        column = as_texts(batch[target])
        codes, counts = np.unique(column.codes, return_counts=True)
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            text = column.values[code]
            missing += count * (text is None)
            labels = split_labels(text, separator)
            are_several |= len(labels) > 1
            found.update(labels)
        if len(found) > MAX_LABELS:
            break
    check_label_texts(source.name, target, separator, found, are_several=are_several)
    source.notes += [missing_label_note(target, missing)] if missing else []
    return LabelTexts(separator, tuple(sorted(found)))
