"""Which models the OpenAPI document and the reference page describe: as many as fit into a limit of bytes."""

from __future__ import annotations

from operator import itemgetter
from weakref import WeakKeyDictionary

import orjson
from apispec import APISpec

from model_store.schema.signature import RegressionOutput
from service.openapi.model_paths import add_model_paths
from service.protocols.model_metadata import model_details
from service.registry.loaded_version import LoadedVersion
from service.registry.snapshot import Snapshot

MAX_DESCRIBED_BYTES = 3_000_000  # of the document, or of the page: a hundred models of 30 columns; 0.2 s to make
_PAGE_FACTOR = 10  # bytes of the page for one of the details, measured
_NAME_BYTES = 200  # of the document for each column and target, at least
_details_bytes: WeakKeyDictionary[LoadedVersion, int] = WeakKeyDictionary()
_document_bytes: WeakKeyDictionary[LoadedVersion, int] = WeakKeyDictionary()


def split_described(snapshot: Snapshot) -> tuple[list[LoadedVersion], list[LoadedVersion]]:
    """Return the default versions that the OpenAPI document and the reference page describe, and those they only name.

    Small ones come first, up to `MAX_DESCRIBED_BYTES` in all: one model of 60,000 columns, or one among thousands of
    models, must not make the description of all others take seconds. The schemas of a model are made to be measured
    only if what is known without them fits.
    """
    left, described = MAX_DESCRIBED_BYTES, set()
    known = [(_least_bytes(snapshot, each), each) for each in snapshot.default_versions]
    for least, served in sorted(known, key=itemgetter(0)):
        if least > left:
            break
        size = max(least, _measured_bytes(served))
        if size <= left:
            described.add(served)
            left -= size
    versions = snapshot.default_versions
    return [each for each in versions if each in described], [each for each in versions if each not in described]


def _least_bytes(snapshot: Snapshot, served: LoadedVersion) -> int:
    """Return the bytes of a model in the page, or in the document at least, whichever are more."""
    size = _details_bytes.get(served)
    if size is None:
        details = model_details(snapshot.entries[served.name], served)
        _details_bytes[served] = size = len(orjson.dumps(details))
    signature = served.model.signature
    targets = len(signature.output.names) if isinstance(signature.output, RegressionOutput) else 0
    return max(_PAGE_FACTOR * size, _NAME_BYTES * (len(signature.inputs) + targets))


def _measured_bytes(served: LoadedVersion) -> int:
    """Return the bytes of a model's paths and schemas in the document."""
    size = _document_bytes.get(served)
    if size is None:
        spec = APISpec(title="", version="", openapi_version="3.1.0")
        add_model_paths(spec, served)
        _document_bytes[served] = size = len(orjson.dumps(spec.to_dict()))
    return size
