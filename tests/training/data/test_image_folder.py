"""Folders of images as data: their order, fingerprint and copies, and files that cannot be read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.image_files import huge_png, image_file, noise
from training.config.schema import validate
from training.config.settings import DataSection, ImageSection
from training.data import image_folder
from training.data.image_folder import read_image_folder
from training.data.loading import load
from training.errors import DataError

SECTION = ImageSection([4, 4], "grey")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of dogs and two of cats, among them a JPEG that is named as a PNG."""
    path = tmp_path / "pets"
    for i, name in enumerate(("dog/b.png", "dog/a.PNG", "dog/c.jpeg", "cat/2.jpg", "cat/1.png")):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(image_file(noise(8, 8, seed=i), "JPEG" if name.endswith("eg") else "PNG"))
    (path / "cat" / "1.png").write_bytes(image_file(noise(8, 8, seed=4), "JPEG"))
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(DataError) as caught:
        read_image_folder(path, SECTION)
    assert caught.value.source == "pets/"
    assert all(fault.fix for fault in caught.value.faults)
    return [f"{fault.location}: {fault.problem}" for fault in caught.value.faults]


def test_rows_have_the_order_of_classes_and_names(folder: Path) -> None:
    found = read_image_folder(folder, SECTION)
    assert found.arrays.x.shape == (5, 4, 4)
    assert found.arrays.x.dtype == np.uint8
    assert found.arrays.y.tolist() == ["cat", "cat", "dog", "dog", "dog"]
    files = [folder / name for name in ("cat/1.png", "cat/2.jpg", "dog/a.PNG", "dog/b.png", "dog/c.jpeg")]
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(folder)}\n" for file in files]
    assert found.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert found.notes == []


def test_the_dataset_is_a_classification_of_one_array(folder: Path) -> None:
    data = DataSection(path="pets/", image=SECTION)
    rows = load(data, folder.parent)
    assert (rows.task, rows.labels, rows.kinds, rows.notes) == (
        "classification", ("cat", "dog"), {"image": "array"}, [],
    )  # fmt: skip
    column = rows.signature(data, np.arange(5)).inputs[0]
    assert (column.shape, column.image_crop, column.low, column.high) == ((4, 4), "center", 0, 255)  # type: ignore[attr-defined]


def test_copies_in_a_class_are_left_out_and_those_in_others_are_reported(folder: Path) -> None:
    content = (folder / "dog" / "b.png").read_bytes()
    before = read_image_folder(folder, SECTION)
    (folder / "dog" / "z.png").write_bytes(content)
    (folder / "cat" / "z.png").write_bytes(content)
    found = read_image_folder(folder, SECTION)
    assert found.arrays.y.tolist() == ["cat", "cat", "cat", "dog", "dog", "dog"]
    assert found.sha256 != before.sha256
    assert found.notes == [
        "1 file is a copy of another of the same class and left out",
        "1 image is in several classes: remove the wrong copies",
    ]


def test_other_files_are_ignored_with_a_note(folder: Path) -> None:
    for name in (".DS_Store", "dog/Thumbs.db", "readme.txt", "dog/notes.txt"):
        (folder / name).write_text("x")
    (folder / "dog" / "more").mkdir()
    notes = read_image_folder(folder, SECTION).notes
    assert notes == ["ignored, since they do not end in .png, .jpg, .jpeg: readme.txt, more, notes.txt"]


def test_every_file_that_cannot_be_read_is_listed_and_many_are_counted(folder: Path) -> None:
    dogs = folder / "dog"
    (dogs / "d.png").write_bytes(huge_png())
    (dogs / "e.png").write_bytes(image_file(noise(8, 8))[:-30])
    (dogs / "f.png").write_bytes(image_file(noise(8, 8), "GIF"))
    os.mkfifo(dogs / "g.png")
    (dogs / "h.png").symlink_to(dogs / "nowhere")
    (dogs / "i.png").mkdir()
    (dogs / "j.png").symlink_to(dogs / "a.PNG")  # is followed: a copy
    found = problems(folder)
    assert [problem.partition(": ")[0] for problem in found] == [f"dog/{name}.png" for name in "defghi"]
    assert "found 30000 x 30000" in found[0]
    assert "expected a whole file" in found[1]
    assert "expected a PNG or JPEG file" in found[2]
    assert "found a pipe" in found[3]
    assert "no such file" in found[4]
    assert "Is a directory" in found[5]
    for i in range(100):
        (dogs / f"{i}.png").write_bytes(b"")
    with pytest.raises(DataError, match="106 faults") as caught:
        read_image_folder(folder, SECTION)
    assert len(caught.value.faults) == 20


def test_folders_without_images_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "pets"
    assert problems(path) == [": no such folder"]
    path.mkdir()
    assert "found no folder in it" in problems(path)[0]
    (path / "dog").mkdir()
    assert "found 1 folders without one" in problems(path)[0]


def test_images_that_do_not_fit_in_memory_are_an_error_before_one_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_folder, "read_image_file", lambda _: pytest.fail("read"))
    monkeypatch.setattr("training.available_memory.available_bytes", lambda: 1000)
    monkeypatch.setattr("training.available_memory._MIN_CHECKED_BYTES", 1)
    with pytest.raises(DataError, match=r"5 images of shape \(4096, 4096, 3\) do not fit in memory.*lower data.image"):
        read_image_folder(folder, ImageSection([4096, 4096]))


def test_without_pillow_the_error_names_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    assert problems(folder) == [": expected Pillow, which decodes images, found none"]


def test_the_settings_are_checked() -> None:
    def faults(data: dict[str, object], **sections: object) -> list[str]:
        found = validate({"model": {"name": "a"}, "data": data, **sections})
        return [str(fault) for fault in found] if isinstance(found, list) else []

    assert faults({"path": "pets/", "image": {"size": [8, 9], "colour": "grey", "crop": "pad"}}) == []
    assert faults({"path": "pets/"}, split={"test_file": "test/"}) == []
    assert "data.image.size: expected [height, width]" in faults({"path": "pets/", "image": {"size": 8}})[0]
    assert "data.image.crop: expected" in faults({"path": "pets/", "image": {"crop": "middle"}})[0]
    assert "data.image: only for a folder of images" in faults({"path": "a.npz", "image": {}})[0]
    assert "or a folder of images that ends in /" in faults({"path": "pets"})[0]
    assert "data.stream: images are read into memory" in faults({"path": "pets/", "stream": True})[0]
    assert "data.task: expected a classification" in faults({"path": "pets/", "task": "regression"})[0]
    assert "data.columns: only tables" in faults({"path": "pets/", "columns": ["a"]})[0]
    assert "split.test_file: expected a folder" in faults({"path": "pets/"}, split={"test_file": "a.npz"})[0]
    assert "split.test_file: expected a .npz file" in faults({"path": "a.npz"}, split={"test_file": "a/"})[0]
    assert "train.augment.flip: expected" in faults({"path": "pets/"}, train={"augment": {"flip": "left"}})[0]
    assert "train.augment.shift: expected" in faults({"path": "pets/"}, train={"augment": {"shift": 0.6}})[0]


def test_large_jpegs_are_decoded_at_a_fraction_of_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pets" / "dog").mkdir(parents=True)
    (tmp_path / "pets" / "dog" / "a.jpg").write_bytes(image_file(np.full((800, 640, 3), 90, np.uint8), "JPEG"))
    sizes, resize = list[tuple[int, int]](), Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda self, *a, **k: sizes.append(self.size) or resize(self, *a, **k))
    found = read_image_folder(tmp_path / "pets", ImageSection([32, 32]))
    assert sizes == [(80, 100)]
    assert (found.arrays.x == 90).all()
