"""The protocol's messages, made from `open_inference.binpb`, which is `open_inference.proto` compiled.

They have a descriptor pool of their own: a process that also imports a client of the protocol, whose messages have the
same names, would otherwise fail to import one of both.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet

SERVICE = "inference.GRPCInferenceService"
_pool = descriptor_pool.DescriptorPool()
for _file in FileDescriptorSet.FromString((files(__package__) / "open_inference.binpb").read_bytes()).file:
    _pool.Add(_file)


def message_class(name: str) -> Any:
    """Return the class of a message by its name in the protocol, such as ModelInferRequest."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"inference.{name}"))


ModelInferRequest = message_class("ModelInferRequest")
ModelInferResponse = message_class("ModelInferResponse")
