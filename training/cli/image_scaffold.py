"""`train init` for a folder of images: the job file, with a convolutional network for their size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model_store.schema.columns.image_decoding import decode_image
from model_store.schema.columns.image_file import ImageFile, ImageFileError, read_image_file
from training.config.defaults import default_patience
from training.data.image_folder import list_images, read_file

_SAMPLES = 64  # images that decide size and colour
_MAX_SIDE, _MIN_TWO_BLOCKS, _MIN_ONE_BLOCK = 32, 16, 6
_STEPS, _BATCH, _MIN_EPOCHS, _MAX_EPOCHS = 1500, 64, 5, 40


def render_image_job(path: Path, model: str, folder: str, target: str) -> tuple[str, str]:
    """Return the job file for a folder of images, and what it trains. `model`, `folder` and `target` are quoted.

    DataError if there are no images in it.
    """
    files, _ = list_images(path)
    classes = sorted({file.parent.name for file in files})
    samples = _read_samples(files)
    side = min(_MAX_SIDE, int(np.median([min(file.width, file.height) for file in samples] or [_MAX_SIDE])))
    is_grey = bool(samples) and all(map(_is_grey, samples))
    epochs = int(np.clip(_STEPS * _BATCH // len(files), _MIN_EPOCHS, _MAX_EPOCHS))
    text = _TEMPLATE.format(
        model=model,
        path=folder,
        target=target,
        found=f"{len(files)} files in {len(classes)} folders",
        side=side,
        colour="grey" if is_grey else "rgb",
        space="      " if is_grey else "       ",
        other='"rgb"' if is_grey else '"grey"',
        layers=_layers(side),
        epochs=epochs,
        batch=_BATCH,
        patience=default_patience(epochs),
    )
    return text, f"classification of {len(files)} images in {len(classes)} classes"


def _layers(side: int) -> str:
    blocks = (side >= _MIN_ONE_BLOCK) + (side >= _MIN_TWO_BLOCKS)
    lines = [f'    {{ conv = {16 << i}, kernel = 3 }}, {{ pool = 2 }}, "relu",\n' for i in range(blocks)]
    return "".join(lines)


def _read_samples(files: Sequence[Path]) -> list[ImageFile]:
    """Return some of the files, of all classes, without those that cannot be decoded: training reports them."""
    found = []
    for file in files[:: max(1, len(files) // _SAMPLES)]:
        try:
            found.append(read_image_file(read_file(file)))
        except ImageFileError:
            continue
    return found


def _is_grey(file: ImageFile) -> bool:
    """Return True if an image has no colours, or cannot be decoded."""
    try:
        pixels = decode_image(file, (16, 16, 3), "none")
    except ImageFileError:
        return True
    return bool((pixels == pixels[..., :1]).all())


_TEMPLATE = """\
# Training job. `train check FILE` shows what it would train, `train FILE` trains it. docs/images.md explains it.

[model]
name = {model}
description = "The class of an image"
# examples = "rows"  # publish real held-out images in the model; default: "synthetic", made-up ones; or "none"

[data]
path = {path}  # a folder for each class, with its PNG and JPEG files: {found}
target = {target}

[data.image]
size = [{side}, {side}]      # height and width that images are resized to; twice the sides take four times as long
colour = "{colour}"{space}# or {other}
crop = "center"      # the part around the center that fits; or "pad": all, in black borders; "none": all, stretched

[split]
test = 0.2           # share of images held out for evaluation
validation = 0.1     # share of images held out for early stopping
# test_file = "test/"  # a folder of its own for testing, instead of a share

[network]
layers = [
{layers}    64, "relu", {{ dropout = 0.3 }},
]

[train]
optimizer = "adam"
learning_rate = 0.002
schedule = "cosine"  # of the learning rate, which decays to 0 over all epochs
epochs = {epochs}
batch_size = {batch}
seed = 0             # the same seed gives the same model, bit for bit
early_stopping = {{ patience = {patience} }}  # stop after {patience} epochs without improvement; keeps the best weights
augment = {{ shift = 0.1 }}  # moves training images by up to a tenth; also rotate = 10 (degrees), and
                            # flip = "horizontal" where a mirrored image has the same class, which letters have not

# [publish]
# alias = "candidate"  # moves to each new version; requests keep the version that they get until `models promote`
"""
