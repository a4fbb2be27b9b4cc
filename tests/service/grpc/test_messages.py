"""The compiled messages are those of the file, and the names and numbers in it are the protocol's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("grpc", reason="the extra grpc is installed by make test")

from service.grpc.messages import SERVICE, ModelInferRequest, message_class

FOLDER = Path(__file__).parents[3] / "service" / "grpc"


def test_the_compiled_messages_are_those_of_the_proto_file(tmp_path):
    pytest.importorskip("grpc_tools", reason="installed by make test")
    made = tmp_path / "made.binpb"
    command = ["-m", "grpc_tools.protoc", "-I", str(FOLDER), "--descriptor_set_out", str(made), "open_inference.proto"]
    subprocess.run([sys.executable, *command], check=True)
    assert made.read_bytes() == (FOLDER / "open_inference.binpb").read_bytes()


def test_a_message_has_the_numbers_of_the_protocol():
    numbers = {field.name: field.number for field in ModelInferRequest.DESCRIPTOR.fields}
    assert numbers == {
        "model_name": 1,
        "model_version": 2,
        "id": 3,
        "parameters": 4,
        "inputs": 5,
        "outputs": 6,
        "raw_input_contents": 7,
    }
    assert SERVICE == "inference.GRPCInferenceService"


def test_a_process_may_have_messages_of_the_same_names():
    """Clients of Triton and KServe register theirs in protobuf's default pool."""
    from google.protobuf import descriptor_pool

    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")
    assert message_class("ModelInferRequest").FromString(b"\x0a\x01x").model_name == "x"
