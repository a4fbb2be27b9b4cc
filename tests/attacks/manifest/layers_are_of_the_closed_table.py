"""Layer types with names of other objects: a reader that looks them up in Python's namespace would call them."""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, main


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
