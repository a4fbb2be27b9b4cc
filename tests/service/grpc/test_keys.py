"""API keys, scopes and listeners over gRPC: the rules of HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.registry.store import Store
from service.security import api_keys
from tests.service.conftest import MakeClient
from tests.service.grpc.conftest import GrpcClient, RawConnection, Serve, grpc, message_class, request
from tests.service.security.keys import KEY_OF, line

Code = grpc.StatusCode
PUBLIC = {"ServerLive", "ServerReady"}
ADMIN = {"RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"}
PREDICT = {"ServerMetadata", "ModelMetadata", "ModelReady", "ModelInfer"}


@pytest.fixture
def ours(store: Store, make_client: MakeClient, serve_grpc: Serve, tmp_path: Path) -> GrpcClient:
    """A service that requires keys."""
    path = tmp_path / "keys"
    path.write_text("".join(line(f"of-{scope}", scope, KEY_OF[scope]) for scope in api_keys.SCOPES))
    settings: dict[str, Any] = {"keys_file": str(path), "admin": True, "admin_port": 1}
    app = make_client(store, **settings).application
    return serve_grpc(app, has_repository=True)


def metadata(scope: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {KEY_OF[scope]}")]


def message(name: str) -> Any:
    if name == "ModelInfer":
        return request("image", pixels=np.zeros((1, 4)))
    made = message_class(f"{name}Request")()
    for field in {"name", "model_name"} & {field.name for field in made.DESCRIPTOR.fields}:
        setattr(made, field, "image")
    return made


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_health_checks_require_no_key(ours, name):
    assert ours.call(name) is not None


@pytest.mark.parametrize("name", sorted(PREDICT | ADMIN))
def test_every_other_call_requires_a_key(ours, name):
    error = ours.error(name, message(name))
    assert error.code() is Code.UNAUTHENTICATED
    assert "Authorization" in error.details()
    assert ours.error(name, message(name), metadata=[("authorization", "Bearer fp_no")]).code() is Code.UNAUTHENTICATED


@pytest.mark.parametrize("name", sorted(PREDICT | ADMIN))
def test_a_call_requires_its_scope(ours, name):
    right, wrong = ("admin", "predict") if name in ADMIN else ("predict", "metrics")
    assert ours.error(name, message(name), metadata=metadata(wrong)).code() is Code.PERMISSION_DENIED
    assert ours.call(name, message(name), metadata=metadata(right)) is not None


def test_a_stranger_is_refused_before_the_message_is_read(ours):
    stranger = RawConnection(ours.port)
    stranger.start("/inference.GRPCInferenceService/ModelInfer")
    answer = stranger.received(1.0)  # only the head of the call was sent
    stranger.close()
    assert b"Authorization" in answer
    assert b"grpc-status" in answer


def test_the_name_of_a_key_is_in_the_log(ours, caplog):
    caplog.set_level("INFO", "service.access")
    ours.call("ModelInfer", message("ModelInfer"), metadata=metadata("predict"))
    assert "key=of-predict" in caplog.text
