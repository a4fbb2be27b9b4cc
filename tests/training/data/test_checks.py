"""Notes on the data before training: untested classes and images whose channels come first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.data.checks.columns import find_channels_first, find_untested_classes
from training.pipeline.job import from_dict, prepare


def test_classes_without_a_test_row_are_reported() -> None:
    (note,) = find_untested_classes(["a", "b"], np.zeros(9, np.int64))
    assert note.startswith("class 'b' has no test row: the metrics do not cover it")
    (note,) = find_untested_classes(range(9), np.array([0, 1]))
    assert note.startswith("7 classes have no test row (2, 3, 4, 5, 6, ...)")
    assert find_untested_classes(["a", "b"], np.array([0, 1])) == []
    assert find_untested_classes(["a", "b"], np.empty(0, np.int64)) == []


def test_images_for_convolutions_with_channels_first_are_reported(tmp_path: Path) -> None:
    x, y = np.zeros((40, 3, 8, 9), np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "t.npz", x=x + y[:, None, None, None].astype(np.uint8), y=y)
    content = {"model": {"name": "m"}, "data": {"path": "t.npz"}, "network": {"layers": [{"conv": 2}]}}
    notes = prepare(from_dict(content, tmp_path)).notes
    assert any(note.startswith("images are read as 3 high and 8 wide with 9 channels; if the ch") for note in notes)
    assert [find_channels_first(shape) for shape in ((8, 9, 3), (28, 28, 1), (3, 28, 1), (3, 4, 4), (12,))] == [[]] * 5
