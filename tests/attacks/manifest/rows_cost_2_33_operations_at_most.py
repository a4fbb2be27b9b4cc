"""Few bytes that need hours for a row: a pooling of large windows over a large image."""

from __future__ import annotations

from model_store.artifact.model import Model
from model_store.nn import Conv2D, Flatten, Linear, MaxPool2D, Sequential
from model_store.schema.signature import ArrayColumn, RegressionOutput, Signature
from tests.attacks.forge import ValidArtifact, Variants, main, valid_artifact

IMAGE = (4096, 4096, 1)


def hostile(artifact: ValidArtifact) -> Variants:
    del artifact
    return {f"windows of {size} x {size} pixels": _artifact(size) for size in (32, 128, 255)}


def _artifact(size: int) -> bytes:
    """Return a valid file but for the first layer, whose windows are `size` pixels wide and one pixel apart."""
    rest = [Conv2D((4, 4, 1), 1, 1, 3), Flatten((2, 2, 1)), Linear(4, 1)]
    signature = Signature((ArrayColumn("image", IMAGE[:2]),), RegressionOutput(("y",), (0.0,), (1.0,)))
    valid = valid_artifact(Model(Sequential([MaxPool2D(IMAGE, 1, 1365), *rest]), signature))
    side = IMAGE[0] - size + 1
    layers = [MaxPool2D(IMAGE, size, 1), Conv2D((side, side, 1), 1, 1, side - 1), *rest[1:]]
    return valid.with_manifest_value("layers", Sequential(layers).config())


if __name__ == "__main__":
    main(hostile)
