"""Targets of several labels: columns of flags, texts of labels, and what is inferred and noted."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from training.data.multi_label import find_label_notes, infer_separator, stratum_of_rows
from training.errors import DataError, JobError
from training.pipeline.job import from_dict, prepare
from training.pipeline.prepared_job import PreparedJob

GENRES = ["action|comedy", "drama", "", "comedy", " action | drama|", "drama"] * 10


def prepared(folder: Path, text: str, data: dict[str, Any], **sections: Any) -> PreparedJob:
    (folder / "t.csv").write_text(text)
    content = {"model": {"name": "m"}, "data": {"path": "t.csv", **data}, **sections}
    return prepare(from_dict(content, folder))


def flags(cells: list[str]) -> str:
    return "x,a,b\n" + "".join(f"{i * 7 % 11},{cell}\n" for i, cell in enumerate(cells))


def texts() -> str:
    return "x,genres\n" + "".join(f"{i * 7 % 11},{text}\n" for i, text in enumerate(GENRES))


MAYBE = flags(["1,0", "0,maybe", "1,1"] * 9)


@pytest.mark.parametrize(("yes", "no"), [("1", "0"), ("yes", "No"), ("TRUE", "false"), ("1.0", "0"), ("Ja", "nein")])
def test_columns_of_flags_are_several_labels(tmp_path: Path, yes: str, no: str) -> None:
    job = prepared(tmp_path, flags([f"{yes},{no}", f"{no},{no}", f"{yes},{yes}"] * 20), {"target": ["a", "b"]})
    assert job.dataset.task == "multi_label"
    assert job.dataset.targets[:3].tolist() == [[1, 0], [0, 0], [1, 1]]
    assert job.signature.output.public_details() == {
        "kind": "labels", "name": "labels", "labels": ["a", "b"], "separator": None, "threshold": 0.5,
    }  # fmt: skip
    assert "task: multi_label, inferred from the target (set task in [data] to override)" in job.notes
    assert job.labels(np.arange(3)) == [["a"], [], ["a", "b"]]


def test_other_numbers_are_still_a_regression_of_several_targets(tmp_path: Path) -> None:
    assert prepared(tmp_path, flags(["1,0", "2,0", "1,1"] * 20), {"target": ["a", "b"]}).dataset.task == "regression"
    told = {"target": ["a", "b"], "task": "regression"}
    assert prepared(tmp_path, flags(["1,0", "0,0", "1,1"] * 20), told).dataset.task == "regression"


def test_a_text_of_labels_is_split_at_the_separator(tmp_path: Path) -> None:
    job = prepared(tmp_path, texts(), {"target": "genres", "label_separator": "|", "label_threshold": 0.3})
    assert job.dataset.labels == ("action", "comedy", "drama")
    assert job.dataset.targets[:5].tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert "10 rows have no label: the cell of genres is empty" in job.notes
    assert job.signature.output.public_details()["threshold"] == 0.3


def test_streamed_texts_of_labels_are_those_in_memory(tmp_path: Path) -> None:
    data = {"target": "genres", "label_separator": "|"}
    one = {"train": {"epochs": 1}}  # no ensemble
    memory, stream = (prepared(tmp_path, texts(), data | {"stream": stream}, **one) for stream in (False, True))
    assert memory.signature.output == stream.signature.output
    assert memory.dataset.labels == stream.dataset.labels
    note = "10 rows have no label: the cell of genres is empty"
    assert note in memory.notes
    assert note in stream.notes
    rows = np.array(stream.dataset.lines) - 1  # of those held out: from 1
    assert stream.dataset.targets.tolist() == memory.dataset.targets[rows].tolist()
    assert stream.sizes == memory.sizes


def test_labels_that_only_late_rows_have_are_found_in_a_stream(tmp_path: Path) -> None:
    late = texts() + "1,documentary|drama\n" * 2
    with patch("training.data.streaming.table_reader.TYPE_INFERENCE_ROWS", 20):
        job = prepared(tmp_path, late, {"target": "genres", "label_separator": "|", "stream": True})
    assert job.dataset.labels == ("action", "comedy", "documentary", "drama")


@pytest.mark.parametrize("stream", [False, True])
def test_too_many_labels_are_a_fault(tmp_path: Path, stream: bool) -> None:
    many = "x,y\n" + "".join(f"{i},a{i}|b{i}\n" for i in range(501))
    with pytest.raises(DataError, match=r"at most 1000 labels separated by '\|', found more"):
        prepared(tmp_path, many, {"target": "y", "label_separator": "|", "stream": stream})


@pytest.mark.parametrize(
    ("text", "data", "message"),
    [
        (texts(), {"target": "genres", "label_separator": "|", "missing": "refuse"}, "the target is missing: lines 4"),
        (texts(), {"target": "genres", "label_separator": "+"}, "found no cell with two of them"),
        (MAYBE, {"target": ["a", "b"], "task": "multi_label"}, "line 3, column b: expected 0 or 1"),
        (flags(["1,0", "0,", "1,1"] * 9), {"target": ["a", "b"], "missing": "refuse"}, "target is missing: lines 3"),
        (texts(), {"target": "genres", "task": "multi_label"}, "label_separator = '|'"),
        (texts(), {"target": "genres", "task": "regression", "label_separator": "|"}, "only for several labels"),
        (texts(), {"target": ["x", "genres"], "label_separator": "|"}, "only for a single target column"),
        (
            texts(), {"target": "genres", "label_separator": "|", "missing": "refuse", "stream": True},
            "column genres: missing values: row 3",
        ),
        (texts(), {"target": "genres", "label_separator": "+", "stream": True}, "found no cell with two of them"),
        (texts(), {"target": "genres", "task": "classification", "label_threshold": 0.4}, "only for several labels"),
    ],
)  # fmt: skip
def test_faults_of_targets(tmp_path: Path, text: str, data: dict[str, Any], message: str) -> None:
    with pytest.raises((DataError, JobError), match=message):
        prepared(tmp_path, text, data)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"network": {"output": "softmax"}}, "expected 'sigmoid' for several labels, found 'softmax'"),
        ({"train": {"loss": "mse"}}, "expected 'binary_cross_entropy' for several labels, found 'mse'"),
        ({"network": {"clip_outputs": True}}, "only for regressions, found several labels"),
        ({"train": {"class_weights": {"c": 2}}}, "unknown class 'c'"),
        ({"train": {"early_stopping": {"metric": "accuracy"}}}, "use exact_match, hamming_loss, micro_f1"),
    ],
)
def test_faults_of_settings(tmp_path: Path, section: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError, match=message):
        prepared(tmp_path, flags(["1,0", "0,0", "1,1"] * 20), {"target": ["a", "b"]}, **section)


def test_balanced_weights_are_those_of_two_classes_for_each_label(tmp_path: Path) -> None:
    rows = flags(["1,0", "0,0", "1,1", "1,0"] * 20)
    split = {"test": 0.0, "validation": 0.0}
    job = prepared(tmp_path, rows, {"target": ["a", "b"]}, train={"class_weights": "balanced"}, split=split)
    negative, positive = job.network_spec.class_weights or ((), ())
    assert negative == pytest.approx((2.0, 2 / 3))
    assert positive == pytest.approx((2 / 3, 2.0))
    job = prepared(tmp_path, rows, {"target": ["a", "b"]}, train={"class_weights": {"b": 5}}, split=split)
    assert job.network_spec.class_weights == ((1.0, 1.0), (1.0, 5.0))


def test_arrays_of_zeros_and_ones_are_several_labels(tmp_path: Path) -> None:
    y = np.array([[1, 0], [0, 0], [1, 1]] * 20)
    job = {"model": {"name": "m"}, "data": {"path": "t.npz"}}
    np.savez(tmp_path / "t.npz", x=np.arange(120.0).reshape(60, 2), y=y)
    found = prepare(from_dict(job, tmp_path))
    assert found.dataset.labels == ("label_0", "label_1")
    np.savez(tmp_path / "t.npz", x=np.arange(120.0).reshape(60, 2), y=y + 0.5)
    assert prepare(from_dict(job, tmp_path)).dataset.task == "regression"
    job["data"]["task"] = "multi_label"  # type: ignore[index]
    with pytest.raises(DataError, match=r"y, row 0: expected 0 or 1, found 1\.5"):
        prepare(from_dict(job, tmp_path))


def test_every_part_has_rows_of_a_rare_label(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cells = [f"{int(rng.random() < 0.5)},{int(i % 40 == 0)}" for i in range(400)]
    job = prepared(tmp_path, flags(cells), {"target": ["a", "b"]}, train={"epochs": 1})
    for part, count in ((job.split.training, 7), (job.split.validation, 1), (job.split.test, 2)):
        assert job.dataset.targets[part, 1].sum() == count


def test_a_stream_of_several_labels_is_not_stratified(tmp_path: Path) -> None:
    rows, data = flags(["1,0", "0,0", "1,1"] * 40), {"target": ["a", "b"], "stream": True}
    assert prepared(tmp_path, rows, data, train={"epochs": 1}).sizes["test"] == 24
    with pytest.raises(DataError, match=r"split\.stratify: rows with several labels are stratified in memory only"):
        prepared(tmp_path, rows, data, split={"stratify": True})


def test_a_row_counts_for_its_rarest_label() -> None:
    y = np.array([[1, 0, 1], [1, 0, 0], [1, 1, 1], [0, 0, 0], [1, 0, 0], [1, 0, 1]], float)
    assert stratum_of_rows(y).tolist() == [1, 2, 0, 3, 2, 1]


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (GENRES, "|"),
        (["red;blue", "red", "blue;green", "green", "red;green"] * 10, ";"),
        (["Boston, MA", "Austin, TX", "Dallas, TX"] * 20, None),  # the parts belong together
        (["White", "Asian / Pacific", "Black", "Native / Alaska"] * 20, None),
        (["1,5", "2", "3,25"] * 20, None),
        (["yes", "no"] * 20, None),
        ([f"a long text, number {i}, of words" if i % 2 else "short" for i in range(60)], None),
    ],
)
def test_a_separator_is_inferred_from_texts_that_combine_labels(cells: list[str], separator: str | None) -> None:
    assert infer_separator(cells) == separator


def test_labels_of_which_nothing_is_learned_are_noted() -> None:
    training = np.array([[1, 0, 0, 1], [1, 1, 0, 0]], float)
    notes = find_label_notes(("a", "b", "c", "d"), training, np.array([[1, 0, 0, 1]], float))
    assert notes == [
        "no training row has the label 'c': nothing is learned about it",
        "every training row has the label 'a': nothing is learned about it",
        "no test row has the label 'b': the metrics do not cover it",
    ]
    assert "exactly one label" in find_label_notes(("a", "b"), np.eye(2), np.eye(2))[0]


def test_a_target_of_labels_takes_a_byte(tmp_path: Path) -> None:
    job = prepared(tmp_path, texts(), {"target": "genres", "label_separator": "|"})
    assert job.dataset.targets.itemsize == 1
    job = prepared(tmp_path, flags(["1,0", "0,0", "1,1"] * 20), {"target": ["a", "b"]})
    assert job.dataset.targets.itemsize == 1
    arrays = {"x": np.arange(120.0).reshape(60, 2), "y": np.tile([[0, 1], [1, 1], [1, 0]], (20, 1))}
    np.savez(tmp_path / "a.npz", **arrays)
    content = {"model": {"name": "m"}, "data": {"path": "a.npz", "task": "multi_label"}}
    assert prepare(from_dict(content, tmp_path)).dataset.targets.itemsize == 1


def test_labels_that_do_not_fit_in_memory_are_an_error_before_they_are_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = []

    def refuse(count: int) -> None:
        needed.append(count)
        raise MemoryError("1.0 GiB are needed, 0.5 GiB are available")

    monkeypatch.setattr("training.data.multi_label.check_memory", refuse)
    with pytest.raises(DataError, match=r"60 rows of 3 labels do not fit in memory: 1\.0 GiB are needed"):
        prepared(tmp_path, texts(), {"target": "genres", "label_separator": "|"})
    assert needed == [60 * 3 * 13]
