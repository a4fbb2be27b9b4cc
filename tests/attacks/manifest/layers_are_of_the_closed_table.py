"""Layer types with names of other objects: a reader that looks them up in Python's namespace would call them."""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, main

POOL = {"type": "MaxPool2D", "input_shape": [3, 1, 1], "size": 1, "stride": 1}
CONV = {"type": "Conv2D", "input_shape": [3, 1, 1], "filters": 1, "kernel": 1, "stride": 1, "padding": 0}
POOLS: dict[str, dict[str, object]] = {
    "windows that lie in the padding": {"padding": 1},
    "windows between which the image lies": {"size": 2, "padding": [0, 4, 0, 4], "dilation": [1, 4]},
    "a border of billions of pixels": {"size": [2, 255], "padding": [0, 2**30, 0, 2**30]},
    "a padding of a text": {"padding": "same"},
    "sizes of three axes": {"size": [1, 1, 1]},
    "a dilation of millions": {"dilation": 2**20},
    "a mean that counts the border with a number": {"type": "AveragePool2D", "include_padding": 1},
    "a largest value that counts the border": {"include_padding": True},
}


def hostile(artifact: ValidArtifact) -> Variants:
    return {
        "a function of Python": artifact.with_manifest_value("layers/1/type", "os.system"),
        "a private class": artifact.with_manifest_value("layers/1/type", "Module"),
        "a list as type": artifact.with_manifest_value("layers/1/type", ["Tanh"]),
        "no type": artifact.with_manifest_value("layers/1", {}),
        "a parameter more": artifact.with_manifest_value("layers/1/slope", 1),
        "a text size": artifact.with_manifest_value("layers/0/input_size", "3"),
        "a boolean size": artifact.with_manifest_value("layers/0/input_size", True),
        "a negative size": artifact.with_manifest_value("layers/0/output_size", -4),
        "a window of millions of pixels": artifact.with_manifest_value(
            "layers/0", {"type": "MaxPool2D", "input_shape": [4096, 4096, 1], "size": 4096, "stride": 1}
        ),
        **{
            f"a pooling with {name}": artifact.with_manifest_value("layers/0", POOL | change)
            for name, change in POOLS.items()
        },
        "a convolution with three paddings": artifact.with_manifest_value("layers/0", CONV | {"padding": [0, 0, 1]}),
        "a shape of four dimensions": artifact.with_manifest_value(
            "layers/1", {"type": "Gather", "input_size": 4, "shape": [1, 1, 1, 4]}
        ),
        "a shape of billions of values": artifact.with_manifest_value(
            "layers/1", {"type": "Gather", "input_size": 4, "shape": [2**30]}
        ),
        "an average of one network": artifact.with_manifest_value("layers/1", {"type": "Average", "members": [[]]}),
        "an average inside an average": artifact.with_manifest_value(
            "layers/1", {"type": "Average", "members": [[{"type": "Average", "members": []}]] * 2}
        ),
        "a million networks": artifact.with_manifest_value("layers/1", {"type": "Average", "members": [[]] * 10**6}),
        "a network of a private class": artifact.with_manifest_value(
            "layers/1", {"type": "Average", "members": [[{"type": "Module"}]] * 2}
        ),
        "not objects": artifact.with_manifest_value("layers", [1, None]),
    }


if __name__ == "__main__":
    main(hostile)
