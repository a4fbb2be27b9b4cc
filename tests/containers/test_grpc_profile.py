"""The profile grpc: the same models over gRPC, with the answers of the service over HTTP."""

import json
import struct
from collections.abc import Iterator

import pytest

from tests.containers.conftest import up
from tests.containers.stack import Stack

grpc_conftest = pytest.importorskip("tests.service.grpc.conftest", reason="the extra grpc is installed by make test")

pytestmark = [pytest.mark.slow, pytest.mark.containers]


@pytest.fixture(scope="module")
def grpc_stack(engine: dict[str, str]) -> Iterator[Stack]:
    """The project with the profile grpc; the address is that of gRPC."""
    with up(engine, "service-grpc") as stack:
        yield stack


def test_calls_have_the_answers_of_http(grpc_stack: Stack) -> None:
    client = grpc_conftest.GrpcClient(int(grpc_stack.address.rpartition(":")[2]))
    assert client.call("ServerReady").ready
    described = client.call("ModelMetadata", grpc_conftest.message_class("ModelMetadataRequest")(name="xor"))
    columns = {one.name: [[float(i)]] for i, one in enumerate(described.inputs)}
    found = client.call("ModelInfer", grpc_conftest.request("xor", **columns))
    row = list(range(len(columns)))
    answers = grpc_stack.compose(
        *("exec", "-T", "service", "models", "predict", "xor", "--row", json.dumps(row)),
        *("--json", "--url", "http://127.0.0.1:8000"),
    )
    (expected,) = json.loads(answers)["predictions"]
    assert found.model_version == "1"
    (output,), (raw,) = found.outputs, found.raw_output_contents
    assert (output.datatype, list(output.shape)) == ("FP64", [1, 1])
    assert struct.unpack("<d", raw) == (expected,)


def test_the_container_is_as_confined_as_the_service(grpc_stack: Stack) -> None:
    host = grpc_stack.inspect()["HostConfig"]
    assert (host["ReadonlyRootfs"], host["CapDrop"]) == (True, ["ALL"])
    assert list(host["PortBindings"]) == ["8002/tcp"]
    mounts = grpc_stack.inspect()["Mounts"]
    assert [(one["Destination"], one["RW"]) for one in mounts if one["Type"] == "volume"] == [("/models", False)]
