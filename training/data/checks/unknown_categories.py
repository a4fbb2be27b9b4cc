"""Categories of held-out rows that no training row has: a note, or a fault if the job refuses them."""

from __future__ import annotations

from collections import Counter

import numpy as np

from model_store.errors import Fault
from model_store.schema.signature import CategoryColumn, Signature
from model_store.utils.values import describe_value, list_names
from training.data.dataset import Dataset
from training.data.splitting import Split
from training.errors import DataError

_MAX_EXAMPLES = 3


def find_unknown_categories(signature: Signature, dataset: Dataset, split: Split) -> list[str]:
    """Return a note of the columns whose held-out rows have categories that no training row has.

    A column of too many categories has a note of its own: the rare ones of training rows count as unknown, too.
    DataError with one fault for each column whose unknown categories are refused.
    """
    notes, wide, faults = [], [], []
    held_out = np.concatenate([split.validation, split.test])
    for column in signature.inputs:
        if not isinstance(column, CategoryColumn):
            continue
        if (distinct := column.statistics.get("distinct")) is not None:
            frequent = f"all but the {len(column.categories)} most frequent ones"
            wide.append(f"column {column.name} has {distinct} categories: {frequent} count as unknown")
            continue
        values = dataset.inputs[column.name][held_out]
        unknown = [(value, row) for value, row in zip(values.tolist(), held_out.tolist(), strict=True)
                   if value is not None and not column.knows(value)]  # fmt: skip
        if not unknown:
            continue
        counts = Counter(value for value, _ in unknown)
        if column.unknown == "bucket":
            notes.append(f"{column.name} ({list_names(list(map(describe_value, counts)), _MAX_EXAMPLES)})")
            continue
        first = dict(reversed(unknown))  # the first row of each category
        examples = ", ".join(f"{value!r} in {dataset.location(first[value])}" for value in list(counts)[:_MAX_EXAMPLES])
        categories = "1 category" if len(counts) == 1 else f"{len(counts)} categories"
        rows = "1 held-out row" if len(unknown) == 1 else f"{len(unknown)} held-out rows"
        problem = f"no training row has {categories} of {rows}, such as {examples}"
        faults.append(Fault(f"column {column.name}", problem, "write unknown = 'bucket' in [data], or add such rows"))
    if faults:
        raise DataError(dataset.name, faults)
    found = [f"categories that no training row has count as unknown: {list_names(notes)}"] if notes else []
    return wide + found
