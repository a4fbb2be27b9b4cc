"""Columns and labels that do not fit the network: rows would be encoded with another width, or labels be missing."""

from __future__ import annotations

from typing import Any

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    number = artifact.manifest["signature"]["inputs"][0]
    return {
        "nothing": artifact.with_manifest_value("signature", {}),
        "no columns": artifact.with_manifest_value("signature/inputs", []),
        "a column more": artifact.with_manifest_value(
            "signature/inputs", [*artifact.manifest["signature"]["inputs"], {**number, "name": "x"}]
        ),
        "a column twice": artifact.with_manifest_value("signature/inputs", [number, number, number]),
        "an unknown kind": artifact.with_manifest_value("signature/inputs/0/kind", "pickle"),
        "a zero scale": artifact.with_manifest_value("signature/inputs/0/scale", 0),
        "a linear width of 0": artifact.with_manifest_value("signature/inputs/0", {**number, "linear_width": 0}),
        "a linear width that is none": artifact.with_manifest_value(
            "signature/inputs/0", {**number, "linear_width": None}
        ),
        "a format without a unit": artifact.with_manifest_value(
            "signature/inputs/0/format", {"decimal": ".", "group": ","}
        ),
        "a unit of 1000 characters": artifact.with_manifest_value(
            "signature/inputs/0/format", {"decimal": ".", "group": ",", "unit": "k" * 1000, "missing": []}
        ),
        "a unit with a factor of 0": artifact.with_manifest_value("signature/inputs/0/format", _format(units={"g": 0})),
        "1000 units": artifact.with_manifest_value(
            "signature/inputs/0/format", _format(units=dict.fromkeys(map(_word, range(1000)), 1.0))
        ),
        "bounds that are a number": artifact.with_manifest_value("signature/inputs/0/format", _format(bounds=1)),
        "an indicator without a fill value": artifact.with_manifest_value(
            "signature/inputs/0", {**number, "indicator": True, "fill": None}
        ),
        "a cycle twice": artifact.with_manifest_value(
            "signature/inputs/0", _date(number, format={"order": "iso"}, cycles=["day", "day"])
        ),
        "an unknown order of a date": artifact.with_manifest_value(
            "signature/inputs/0", _date(number, format={"order": "ymd"}, cycles=[])
        ),
        "a date with six words for a missing value": artifact.with_manifest_value(
            "signature/inputs/0", _date(number, format={"order": "iso", "missing": list("abcdef")}, cycles=[])
        ),
        "a date with an indicator without a fill value": artifact.with_manifest_value(
            "signature/inputs/0", _date(number, format={"order": "iso"}, cycles=[], indicator=True, fill=None)
        ),
        "a text of a billion features": artifact.with_manifest_value(
            "signature/inputs/0",
            {"kind": "text", "name": "a", "features": 10**9, "fill": None, "statistics": {}},
        ),
        "an image of five colours": artifact.with_manifest_value("signature/inputs/0", _image(shape=[2, 2, 5])),
        "an image of 4097 rows": artifact.with_manifest_value("signature/inputs/0", _image(shape=[4097, 1])),
        "an image of other numbers": artifact.with_manifest_value("signature/inputs/0", _image(high=1)),
        "an unknown crop": artifact.with_manifest_value("signature/inputs/0", _image(image_crop="eval")),
        "a crop that is none": artifact.with_manifest_value("signature/inputs/0", _image(image_crop=None)),
        "a transform of another kind": artifact.with_manifest_value("signature/output", _values({"kind": "eval"})),
        "knots that descend": artifact.with_manifest_value(
            "signature/output", _values({"kind": "quantile", "scores": [0, 1], "values": [[0, 1], [1, 0]]})
        ),
        "knots of one target": artifact.with_manifest_value(
            "signature/output", _values({"kind": "quantile", "scores": [0, 1], "values": [[0, 1]]})
        ),
        "a million knots": artifact.with_manifest_value(
            "signature/output", _values({"kind": "quantile", "scores": [0] * 10**6, "values": [[0, 1]] * 2})
        ),
        "a label more": artifact.with_manifest_value("signature/output/labels", ["no", "yes", "maybe"]),
        "a label twice": artifact.with_manifest_value("signature/output/labels", ["no", "no"]),
        "a threshold of a class above 1": artifact.with_manifest_value("signature/output/threshold", 1.5),
        "a threshold of a class that is none": artifact.with_manifest_value("signature/output/threshold", None),
        "more labels than outputs": artifact.with_manifest_value("signature/output", _labels(labels=["a", "b", "c"])),
        "a threshold of 1": artifact.with_manifest_value("signature/output", _labels(threshold=1)),
        "a separator without a character": artifact.with_manifest_value("signature/output", _labels(separator="")),
        "a label that is a number": artifact.with_manifest_value("signature/output", _labels(labels=["no", 1])),
    }


def _format(**change: Any) -> dict[str, Any]:
    return {"decimal": ".", "group": "", "unit": "kg", "missing": [], **change}


def _word(number: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in f"{number:03}")


def _date(number: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    return {**number, "kind": "date", **attributes}


def _image(**attributes: Any) -> dict[str, Any]:
    column = {"kind": "array", "name": "image", "statistics": {}, "shape": [2, 2], "offset": 0, "scale": 1}
    return column | {"low": 0, "high": 255, "image_crop": "center"} | attributes


def _values(transform: dict[str, Any]) -> dict[str, Any]:
    one = {"kind": "values", "names": ["no", "yes"], "offset": [0, 0], "scale": [1, 1]}
    return {**one, "transform": transform}


def _labels(**attributes: Any) -> dict[str, Any]:
    output = {"kind": "labels", "name": "tags", "labels": ["no", "yes"], "separator": None, "threshold": 0.5}
    return {**output, **attributes}


if __name__ == "__main__":
    main(hostile)
