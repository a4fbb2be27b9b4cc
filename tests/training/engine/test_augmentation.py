"""Augmentation: exact flips and shifts, rotations, and the same images in a resumed and in a parallel training."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from model_store.nn import Conv2D, Flatten, Linear, Sequential, Softmax
from tests.training.threads_mpi import run_ranks
from training.config.settings import AugmentSection
from training.engine.augmentation import AugmentedSamples, ImageAugmentation
from training.engine.checkpoint import Checkpoint
from training.engine.data_parallel import DataParallel
from training.engine.loop import Samples, TrainingState, train
from training.losses import CrossEntropy
from training.optim.optimizers import Adam

SHAPES = array_shapes(min_dims=3, max_dims=4, max_side=7)


def augmentation(shape: tuple[int, ...], seed: int = 0, **settings: object) -> ImageAugmentation:
    return ImageAugmentation(AugmentSection(**settings), shape, seed)  # type: ignore[arg-type]


def images(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((shape[0], int(np.prod(shape[1:])))).astype(np.float32)


@given(SHAPES, st.sampled_from(["horizontal", "vertical", "both"]), st.integers(0, 9))
def test_two_equal_flips_are_the_identity(shape: tuple[int, ...], flip: str, step: int) -> None:
    x, change = images(shape), augmentation(shape[1:], flip=flip)
    np.testing.assert_array_equal(change(change(x, 3, step), 3, step), x)


@given(SHAPES, st.sampled_from(["horizontal", "vertical", "both"]))
def test_a_flip_mirrors_whole_images(shape: tuple[int, ...], flip: str) -> None:
    x = images(shape)
    found, before = (each.reshape(shape) for each in (augmentation(shape[1:], flip=flip)(x, 0, 0), x))
    for one, image in zip(found, before, strict=True):
        mirrored = [image, image[:, ::-1]] if flip == "horizontal" else [image, image[::-1]]
        mirrored += [image[:, ::-1], image[::-1, ::-1]] if flip == "both" else []
        assert any(np.array_equal(one, each) for each in mirrored)


@given(SHAPES, st.floats(0, 0.5), st.integers(0, 9))
def test_a_shift_moves_pixels_and_repeats_the_border(shape: tuple[int, ...], shift: float, step: int) -> None:
    x = images(shape)
    found, before = augmentation(shape[1:], shift=shift)(x, 0, step).reshape(shape), x.reshape(shape)
    down, right = (round(shift * side) for side in shape[1:3])
    padded = np.pad(before, [(0, 0), (down, down), (right, right)] + [(0, 0)] * (len(shape) - 3), mode="edge")
    height, width = shape[1:3]
    for one, large in zip(found, padded, strict=True):
        assert any(
            np.array_equal(one, large[i : i + height, j : j + width])
            for i in range(2 * down + 1)
            for j in range(2 * right + 1)
        )


@pytest.mark.parametrize("shape", [(5, 5), (6, 6, 3)])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3, 4])
def test_quarter_turns_are_those_of_numpy(shape: tuple[int, ...], quarters: int) -> None:
    x = images((3, *shape))
    with patch("training.engine.augmentation.np.deg2rad", lambda angles: np.full(len(angles), quarters * np.pi / 2)):
        found = augmentation(shape, rotate=90)(x, 0, 0)
    expected = np.rot90(x.reshape(3, *shape), -quarters, axes=(1, 2))
    np.testing.assert_allclose(found.reshape(3, *shape), expected, atol=1e-5)


def test_a_rotation_by_nothing_moves_whole_pixels_as_a_shift_does() -> None:
    x = images((8, 9, 7, 2))
    with patch("training.engine.augmentation.np.deg2rad", lambda angles: np.zeros(len(angles))):
        found = augmentation((9, 7, 2), shift=0.3, rotate=5)(x, 1, 2)
    np.testing.assert_allclose(found, augmentation((9, 7, 2), shift=0.3)(x, 1, 2), atol=1e-6)


def test_images_change_with_seed_epoch_and_step_alone() -> None:
    x, settings = images((6, 8, 8)), {"flip": "both", "shift": 0.2, "rotate": 20}
    first = augmentation((8, 8), **settings)(x, 0, 0)
    np.testing.assert_array_equal(augmentation((8, 8), **settings)(x, 0, 0), first)
    for seed, epoch, step in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not np.array_equal(augmentation((8, 8), seed, **settings)(x, epoch, step), first)


def test_constants_and_the_settings_of_none_change_nothing() -> None:
    x = images((4, 5, 5))
    np.testing.assert_array_equal(augmentation((5, 5))(x, 0, 0), x)
    constant = np.full((4, 25), 0.7, np.float32)
    np.testing.assert_allclose(augmentation((5, 5), flip="both", shift=0.4, rotate=90)(constant, 0, 0), 0.7, atol=1e-6)


# Trainings -----------------------------------------------------------------------------------------------------------

SHAPE = (6, 6, 1)
X, Y = images((50, *SHAPE)), np.eye(2, dtype=np.float32)[np.arange(50) % 2]


def learn(
    epochs: int = 3,
    checkpoint: Checkpoint | None = None,
    parallel: DataParallel | None = None,
    batch_size: int = 16,
    *,
    is_augmented: bool = True,
) -> bytes:
    rng = np.random.default_rng(7)
    convolution = Conv2D(SHAPE, 3, 3, rng=rng)
    size = int(np.prod(convolution.output_shape(SHAPE)))
    network = Sequential([convolution, Flatten((4, 4, 3)), Linear(size, 2, rng=rng), Softmax()])
    samples: Samples = Samples(X, Y)
    if is_augmented:
        samples = AugmentedSamples(samples, augmentation(SHAPE, flip="both", shift=0.2, rotate=15))
    train(
        network, samples, None, CrossEntropy(), Adam(network, 0.01), epochs, batch_size,
        rng=np.random.default_rng(9), on_epoch=None, checkpoint=checkpoint, parallel=parallel,
    )  # fmt: skip
    return b"".join(array.tobytes() for array in network.parameters())


def test_every_epoch_has_each_row_once_with_its_target() -> None:
    still = AugmentedSamples(Samples(X, Y), augmentation(SHAPE))
    state = TrainingState(Sequential([Linear(36, 2)]), np.random.default_rng(0))
    batches = list(still.epoch_blocks(state, 16))
    assert [len(x) for x, *_ in batches] == [16, 16, 16, 2]
    rows, targets = (np.concatenate([batch[i] for batch in batches]) for i in (0, 1))
    found = {row.tobytes(): target.tolist() for row, target in zip(rows, targets, strict=True)}
    assert found == {row.tobytes(): target.tolist() for row, target in zip(X, Y, strict=True)}


@pytest.mark.parametrize("batch_size", [16, 50])
def test_augmented_trainings_are_repeatable_and_differ_from_others(batch_size: int) -> None:
    assert learn(batch_size=batch_size) == learn(batch_size=batch_size) != learn(is_augmented=False)


def test_a_resumed_training_sees_the_same_images(tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    saves = 0

    def save_and_stop(self: Checkpoint) -> None:
        nonlocal saves
        save(self)
        saves += 1
        if saves == 6:  # in the second epoch
            raise StoppedError

    path, save = tmp_path / "checkpoint.npz", Checkpoint.save
    with patch.object(Checkpoint, "save", save_and_stop), pytest.raises(StoppedError):
        learn(checkpoint=Checkpoint(path, {}, seconds=0))
    assert learn(checkpoint=Checkpoint(path, {}, seconds=0, resume=True)) == learn()


def test_ranks_see_the_images_of_one_process() -> None:
    def of_rank(rank: object) -> bytes:
        return learn(parallel=DataParallel(rank, exact=True))  # type: ignore[arg-type]

    assert set(run_ranks(3, of_rank)) == {of_rank(None)}
