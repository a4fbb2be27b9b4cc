"""deploy/kserve against KServe's own definition of its resources, as its Python package has it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

kserve = pytest.importorskip("kserve", reason="the clients of others are installed by make clients")
from kubernetes import client as kubernetes  # noqa: E402

FOLDER = Path(__file__).parents[2] / "deploy" / "kserve"
KINDS = {"InferenceService": "V1beta1InferenceService", "ClusterServingRuntime": "V1alpha1ClusterServingRuntime"}
PRIMITIVES: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "bool": bool,
    "float": (int, float),
    "object": object,
}


def check(value: Any, kind: str, place: str) -> None:
    """Check a value of a manifest against a type of the package: keys, types, and required fields. ValueError if not.

    The package's own `deserialize` ignores unknown keys and casts numbers to texts.
    """
    if found := re.fullmatch(r"[lL]ist\[(.+)\]", kind):
        if not isinstance(value, list):
            raise ValueError(f"{place}: expected a list, found {value!r}")
        for index, each in enumerate(value):
            check(each, found[1], f"{place}[{index}]")
    elif found := re.fullmatch(r"(?:dict\(|Dict\[)str, (.+)[)\]]", kind):
        for key, each in value.items():
            check(key, "str", place)
            check(each, found[1], f"{place}.{key}")
    elif kind in PRIMITIVES:
        if not isinstance(value, PRIMITIVES[kind]) or (isinstance(value, bool) and kind in ("int", "float")):
            raise ValueError(f"{place}: expected {kind}, found {value!r}")
    else:
        model = getattr(kserve, kind, None) or getattr(kubernetes, kind)
        names = {key: name for name, key in model.attribute_map.items()}
        if unknown := set(value) - set(names):
            raise ValueError(f"{place}: expected keys of {kind}, found {sorted(unknown)}")
        for key, each in value.items():
            check(each, model.openapi_types[names[key]], f"{place}.{key}")
        model(**{names[key]: each for key, each in value.items()})  # ValueError if a required one is missing


def manifests() -> dict[str, Any]:
    found = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.yaml"))
    return {each["kind"]: each for each in found}


@pytest.mark.parametrize("kind", KINDS)
def test_the_manifest_fits_the_definition_of_kserve(kind: str) -> None:
    check(manifests()[kind], KINDS[kind], kind)


@pytest.mark.parametrize(
    ("kind", "spoil", "problem"),
    [
        ("InferenceService", lambda spec: spec["predictor"].update(minReplica=2), "minReplica"),
        ("InferenceService", lambda spec: spec["predictor"]["model"].update(protocol="v2"), "protocol"),
        ("InferenceService", lambda spec: spec["predictor"].update(minReplicas="2"), "expected int"),
        ("InferenceService", lambda spec: spec["predictor"]["model"].pop("modelFormat"), "model_format"),
        ("ClusterServingRuntime", lambda spec: spec.update(protocols=["v2"]), "protocols"),
        ("ClusterServingRuntime", lambda spec: spec.pop("containers"), "containers"),
        ("ClusterServingRuntime", lambda spec: spec["containers"][0].update(image=1), "expected str"),
        ("ClusterServingRuntime", lambda spec: spec["containers"][0]["ports"][0].update(port=1), "port"),
    ],
)
def test_a_spoilt_manifest_is_refused(kind: str, spoil: Callable[[dict[str, Any]], Any], problem: str) -> None:
    manifest = manifests()[kind]
    spoil(manifest["spec"])
    with pytest.raises(ValueError, match=problem):
        check(manifest, KINDS[kind], kind)
