"""Augmentation of training images: each epoch sees every image flipped, shifted and rotated in another way.

Validation and test rows are never changed. What a batch gets depends on the seed, the epoch and the step alone, so a
resumed training, and one on several processes, see the same images to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from model_store.nn import Array
from training.config.settings import AugmentSection
from training.engine.data_parallel import DataParallel
from training.engine.loop import Samples, TrainingState

_SEED_KEY = 8  # of the generators of a job's seed


@dataclass(frozen=True)
class ImageAugmentation:
    """Changes batches of images of `shape`, (height, width) or (height, width, channels), flat in their rows."""

    section: AugmentSection
    shape: tuple[int, ...]
    seed: int

    def __call__(self, x: Array, epoch: int, step: int) -> Array:
        """Return the images of a batch (n, features), changed. `epoch` and `step` count from 0.

        A pixel takes the value of the place in the old image that moves onto it: by bilinear interpolation if images
        are rotated, exactly otherwise. Places outside the image have the value of the nearest pixel on its border.
        """
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(_SEED_KEY, epoch, step)))
        count, (height, width) = len(x), self.shape[:2]
        flipped = rng.random((2, count)) < 0.5
        sides = np.array([[height], [width]])
        most = np.rint(self.section.shift * sides).astype(np.int64)
        moved = rng.integers(-most, most, (2, count), endpoint=True)
        turned = np.deg2rad(rng.uniform(-self.section.rotate, self.section.rotate, count))
        images = x.reshape(count, height, width, -1)
        if self.section.flip in ("vertical", "both"):
            images = np.where(flipped[0].reshape(-1, 1, 1, 1), images[:, ::-1], images)
        if self.section.flip in ("horizontal", "both"):
            images = np.where(flipped[1].reshape(-1, 1, 1, 1), images[:, :, ::-1], images)
        if self.section.rotate:
            images = _rotate(images, moved, turned)
        elif self.section.shift:
            rows = np.clip(np.arange(height) - moved[0].reshape(-1, 1), 0, height - 1)
            columns = np.clip(np.arange(width) - moved[1].reshape(-1, 1), 0, width - 1)
            images = images[np.arange(count).reshape(-1, 1, 1), rows[:, :, np.newaxis], columns[:, np.newaxis]]
        return images.reshape(x.shape)


def _rotate(images: Array, moved: Array, turned: Array) -> Array:
    """Return images (n, height, width, channels), rotated around their centers and then moved.

    The pixel p of the result has the value at R⁻¹(p - c - m) + c, with the center c, the shift m and the rotation R.
    """
    count, height, width, channels = images.shape
    row, column = np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32)
    down = (row - (height - 1) / 2 - moved[0].reshape(-1, 1)).astype(np.float32)[:, :, np.newaxis]
    right = (column - (width - 1) / 2 - moved[1].reshape(-1, 1)).astype(np.float32)[:, np.newaxis]
    cosine, sine = (part(turned).astype(np.float32).reshape(-1, 1, 1) for part in (np.cos, np.sin))
    y = np.clip(cosine * down - sine * right + np.float32((height - 1) / 2), 0, height - 1)
    x = np.clip(sine * down + cosine * right + np.float32((width - 1) / 2), 0, width - 1)
    top, left = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    bottom, end = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    below, beside = ((at - first).astype(images.dtype)[..., np.newaxis] for at, first in ((y, top), (x, left)))
    pixels = np.ascontiguousarray(images).reshape(-1, channels)
    start = (np.arange(count) * height * width).reshape(-1, 1, 1)

    def at(rows: Array, columns: Array) -> Array:
        found: Array = pixels.take(start + rows * width + columns, axis=0)
        return found

    upper = at(top, left) * (1 - beside) + at(top, end) * beside
    lower = at(bottom, left) * (1 - beside) + at(bottom, end) * beside
    rotated: Array = upper * (1 - below) + lower * below
    return rotated


class AugmentedSamples(Samples):
    """Training rows that are changed in every batch."""

    def __init__(self, samples: Samples, augmentation: ImageAugmentation) -> None:
        self.samples, self.augmentation = samples, augmentation

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def constant_features(self) -> Array:
        """None: a pixel that has one value in all images gets those of its neighbours."""
        return np.zeros(len(self.samples.first_sample), bool)

    @property
    def first_sample(self) -> Array:
        return self.samples.first_sample

    @property
    def target_range(self) -> tuple[Array, Array]:
        return self.samples.target_range

    @property
    def targets_sum_to_1(self) -> bool:
        return self.samples.targets_sum_to_1

    def epoch_blocks(
        self, state: TrainingState, batch_size: int, parallel: DataParallel | None = None
    ) -> Iterable[tuple[Array, Array, Array | None, int]]:
        epoch, step = state.finished_epochs, state.steps
        for x, y, order, first in self.samples.epoch_blocks(state, batch_size, parallel):
            for start in range(first, len(x), batch_size):
                rows = slice(start, start + batch_size) if order is None else order[start : start + batch_size]
                yield self.augmentation(x[rows], epoch, step), y[rows], None, 0
                step += 1
