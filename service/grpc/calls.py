"""The calls of the protocol and of the standard health service (grpc.health.v1).

All run in one event loop: a forward pass is short, as in the event worker. A call whose key is missing is refused
before its message is read. A call that has to wait for a version to load does so in another thread (loads.py).

On the wire a call with one message each way and a call with streams are the same. They are registered as streams here,
since gRPC reads the message of the former before any of our code runs, for as long as the client likes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote

import grpc
from grpc_health.v1 import health_pb2

from service.config import Settings
from service.grpc import status
from service.grpc.codec import parse_message, to_document, to_message
from service.grpc.connections import SMALL_BYTES, Connections, OpenCall
from service.grpc.loads import LoadThread
from service.grpc.messages import SERVICE, ModelInferRequest, message_class
from service.grpc.slow_uploads import SlowUploads, overloaded
from service.grpc.turns import Turns
from service.grpc.watchers import MAX_WATCHERS, Watchers
from service.http.exceptions import error_at
from service.http.model_version import AT_LEAST_HEADER, MODEL_VERSION_HEADER, require_at_least
from service.inference.runner import InferenceRunner
from service.protocols import open_inference, open_inference_metadata, tensors
from service.protocols.explain_request import read_explain_parameters
from service.protocols.explained_tensors import explanation_tensors
from service.registry.errors import UnavailableError, UnknownModelError, WouldBlock
from service.registry.loaded_version import LoadedVersion
from service.registry.registry import ModelRegistry
from service.security.access_control import AccessControl
from service.security.api_keys import AccessDeniedError
from service.server.admission import MAX_OUTPUT_BYTES
from service.telemetry.request_record import RequestRecord, RequestRecorder, clock

log = logging.getLogger("service.grpc")

HEALTH_SERVICE = "grpc.health.v1.Health"
_WATCH_SECONDS = 0.5
_Found = TypeVar("_Found")


@dataclass
class Call:
    """A call in progress."""

    record: RequestRecord
    metadata: Mapping[str, str]
    size: int = 0  # of its message, in bytes


@dataclass(frozen=True)
class Method:
    """`endpoint` is the Flask view that does the same, by which access is decided."""

    endpoint: str
    request: Any  # the class of its message; None: it has no field, and is not read
    answer: Callable[[Call, Any], Awaitable[Any]]


class GrpcService:
    """The methods for one listener."""

    def __init__(
        self,
        registry: ModelRegistry,
        inference: InferenceRunner,
        recorder: RequestRecorder,
        access: AccessControl,
        settings: Settings,
        *,
        has_repository: bool,
    ) -> None:
        """`has_repository`: models can be loaded and unloaded here."""
        self._registry, self._inference, self._recorder, self._access = registry, inference, recorder, access
        self._settings, self._has_repository = settings, has_repository
        self._loads = LoadThread(settings.input_limit)
        self._uploads = SlowUploads(settings.input_limit, settings.max_body_bytes)
        self._uploads_of_strangers = SlowUploads(settings.input_limit, settings.max_body_bytes)  # health checks
        self._watchers = Watchers()
        self.connections = Connections()
        self._turns = Turns()
        self._held_bytes = 0
        self.draining = False

    def close_excess(self, ports: Collection[int], max_connections: int) -> None:
        """Close connections to `ports` that shut out others. Called periodically."""
        self.connections.close_excess(ports, max_connections, self._turns.flooding_clients(time.monotonic()))

    def handlers(self) -> list[Any]:
        """Return gRPC's handlers of both services."""
        ours, health = "open_inference.health", "health.alive"
        methods = {
            "ServerLive": Method(ours, None, self._server_live),
            "ServerReady": Method(ours, None, self._server_ready),
            "ModelReady": _method("open_inference.model_ready", "ModelReadyRequest", self._model_ready),
            "ServerMetadata": Method("open_inference.server", None, self._server_metadata),
            "ModelMetadata": _method("open_inference.model", "ModelMetadataRequest", self._model_metadata),
            "ModelInfer": Method("open_inference.infer", ModelInferRequest, self._infer),
            "RepositoryIndex": _method("open_inference.index", "RepositoryIndexRequest", self._index),
            "RepositoryModelLoad": _method("open_inference.load", "RepositoryModelLoadRequest", self._load),
            "RepositoryModelUnload": _method("open_inference.unload", "RepositoryModelUnloadRequest", self._unload),
        }
        check = Method(health, health_pb2.HealthCheckRequest, self._check)
        return [
            _generic_handler(SERVICE, {name: partial(self._handle, method) for name, method in methods.items()}),
            _generic_handler(HEALTH_SERVICE, {"Check": partial(self._handle, check), "Watch": self._watch}),
        ]

    async def _handle(self, method: Method, path: str, context: Any) -> None:
        """Answer one call, count and log it."""
        opened = self.connections.begin(context)
        metadata = dict(context.invocation_metadata())
        record = self._recorder.begin(
            "POST",
            path,
            request_id=metadata.get("x-request-id", ""),
            traceparent=metadata.get("traceparent", ""),
            tracestate=metadata.get("tracestate", ""),
            client=_client_ip(context.peer()),
        )
        error, data = None, b""
        call = Call(record, metadata)
        try:
            try:
                message = await self._admit(method, call, context)
            finally:
                await self._wait_for_turn(call, opened)  # also for an error, since sending it takes time
            data = await self._respond(method, call, message)
        except (asyncio.CancelledError, grpc.aio.InternalError):  # the client has gone, or its deadline is over
            self._recorder.discard()
            raise
        except Exception as e:
            error = status.to_status(e)
            if error is None:
                log.exception("request %s crashed", record.request_id, extra={"request_record": record})
                error = status.internal_error()
            if isinstance(e, AccessDeniedError):
                record.key_name = e.key_name
            record.error_code = error.code
        trailers = [(name.lower(), value) for name, value in self._recorder.response_headers(record)]
        if error is None and record.served is not None:
            trailers.append((MODEL_VERSION_HEADER.lower(), str(record.served.number)))
        self._recorder.finish(record, route=path, status=200 if error is None else error.status)
        self.connections.answered(opened, len(data))
        if error is not None:
            code = getattr(grpc.StatusCode, status.code_name(error))
            await context.abort(code, status.details(error), (*trailers, *status.retry_metadata(error)))
        context.set_trailing_metadata(tuple(trailers))
        await context.write(data)

    async def _admit(self, method: Method, call: Call, context: Any) -> bytes:
        """Check the key, then return the message."""
        authorization = call.metadata.get("authorization")
        port = str(self._settings.admin_port)
        call.record.key_name = self._access.check(method.endpoint, authorization, port)
        if method.request is None:
            return b""
        is_public = self._access.is_public(method.endpoint)
        message = await self._receive(context, self._uploads_of_strangers if is_public else self._uploads)
        call.record.arrived_at = clock()
        if self._held_bytes + len(message) > self._settings.input_limit:
            raise overloaded()
        call.size = len(message)
        return message

    async def _receive(self, context: Any, uploads: SlowUploads) -> bytes:
        async with uploads.limit():
            message = await context.read()
        if message is grpc.aio.EOF:
            problem = f"expected a message of at most {self._settings.max_body_bytes} bytes, found another or none"
            raise error_at(413, "body_too_large", "the message", problem, "send fewer rows")
        received: bytes = message
        return received

    async def _wait_for_turn(self, call: Call, opened: OpenCall) -> None:
        self._held_bytes += call.size
        try:
            if not await self._turns.wait(opened.client, is_alone=self.connections.open_calls == 1):
                raise overloaded()
        finally:
            self._held_bytes -= call.size
        call.record.started_at = clock()

    async def _respond(self, method: Method, call: Call, message: bytes) -> bytes:
        request = None if method.request is None else self._parse(method, message)
        data = _serialize(await method.answer(call, request))
        if len(data) > SMALL_BYTES and self.connections.unread_bytes + len(data) > MAX_OUTPUT_BYTES:
            raise overloaded()  # clients that do not read hold the memory
        return data

    def _parse(self, method: Method, message: bytes) -> Any:
        return parse_message(method.request, message, self._settings.max_body_bytes)

    async def _find(self, call: Call, request: Any, name: str, at_least: int = 0) -> LoadedVersion:
        find = partial(self._registry.find, name or None, request_version(request), at_least=at_least)
        return await self._or_in_thread(call, partial(find, load=False), find)

    async def _or_in_thread(self, call: Call, quick: Callable[[], _Found], slow: Callable[[], _Found]) -> _Found:
        try:
            return quick()
        except WouldBlock:
            pass
        return await self._loads.run(slow, call.size)

    async def _infer(self, call: Call, request: Any) -> Any:
        at_least = require_at_least(call.metadata.get(AT_LEAST_HEADER.lower()))
        call.record.served = served = await self._find(call, request, request.model_name, at_least)
        max_bytes = self._settings.max_body_bytes
        document, tail = to_document(request, served, max_bytes)
        infer = open_inference.parse_request(document, tail, served, max_bytes)
        asked = read_explain_parameters(document.get("parameters"), served, "parameters.")
        encoded = tensors.encode(served.model, infer.arrays, served.max_rows)
        if asked is not None:
            served.row_limit.check_explained("inputs", len(encoded.inputs))
        served.row_limit.check_ranges("inputs", len(encoded.inputs), infer.asked.values_per_output)
        raw = self._inference(call.record, served, encoded.inputs)
        more = []
        if asked is not None:
            signature = infer.asked.signature(served.model)
            found = self._inference.explain(
                call.record, served, encoded.inputs, raw, asked, "rows", signature=signature
            )
            more = explanation_tensors(found)
        return to_message(served, infer, raw, encoded.warnings, more, as_raw=bool(request.raw_input_contents))

    async def _server_live(self, call: Call, request: Any) -> Any:
        return message_class("ServerLiveResponse")(live=True)

    async def _server_ready(self, call: Call, request: Any) -> Any:
        return message_class("ServerReadyResponse")(ready=self._is_ready)

    @property
    def _is_ready(self) -> bool:
        return self._registry.is_ready and not self.draining

    async def _model_ready(self, call: Call, request: Any) -> Any:
        """Return false also for a model that does not exist, as Triton does."""
        try:
            self._registry.version_number(request.name, request_version(request))
        except (UnknownModelError, UnavailableError):
            return message_class("ModelReadyResponse")(ready=False)
        return message_class("ModelReadyResponse")(ready=True)

    async def _server_metadata(self, call: Call, request: Any) -> Any:
        found = open_inference_metadata.server_metadata((), repository=self._has_repository)
        return message_class("ServerMetadataResponse")(**found)

    async def _model_metadata(self, call: Call, request: Any) -> Any:
        served = await self._find(call, request, request.name)
        found = open_inference_metadata.model_metadata(self._registry.snapshot, served)
        return message_class("ModelMetadataResponse")(**found)

    async def _index(self, call: Call, request: Any) -> Any:
        self._require_repository()
        found = open_inference_metadata.repository_index(self._registry, only_ready=request.ready)
        return message_class("RepositoryIndexResponse")(models=found)

    async def _load(self, call: Call, request: Any) -> Any:
        self._require_repository()
        open_inference_metadata.check_loads_no_file(request.parameters)
        await self._loads.run(partial(self._registry.load, request.model_name), call.size)
        return message_class("RepositoryModelLoadResponse")()

    async def _unload(self, call: Call, request: Any) -> Any:
        self._require_repository()
        self._registry.unload(request.model_name)
        return message_class("RepositoryModelUnloadResponse")()

    def _require_repository(self) -> None:
        if not self._has_repository:
            fix = "set SERVE_ADMIN=true and SERVE_GRPC_ADMIN_PORT, and call that port"
            raise error_at(404, "not_found", "repository", "expected another port, found one without these calls", fix)

    async def _check(self, call: Call, request: Any) -> Any:
        if request.service not in {"", SERVICE}:
            problem = f"expected {SERVICE} or none, found another"
            raise error_at(404, "unknown_service", "service", problem, "leave it out")
        return self._health()

    def _health(self) -> Any:
        kind = health_pb2.HealthCheckResponse
        return kind(status=kind.SERVING if self._is_ready else kind.NOT_SERVING)

    async def _watch(self, path: str, context: Any) -> None:
        """Send the health at once and whenever it changes, until the service stops."""
        opened = self.connections.begin(context)
        ended = self._watchers.enter(_client_ip(context.peer()))
        if ended is not None:
            try:
                await self._send_health(context, opened, ended)
            finally:
                self._watchers.leave(ended)
        if ended is None or ended.is_set():
            problem = f"expected at most {MAX_WATCHERS} clients that watch, found more; call Check instead"
            self.connections.answered(opened, 0)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, problem)

    async def _send_health(self, context: Any, opened: OpenCall, ended: asyncio.Event) -> None:
        sent = None
        while not (ended.is_set() or (self.draining and sent is not None)):
            if (found := self._health()) != sent:
                data = _serialize(found)
                self.connections.answered(opened, len(data))
                await context.write(data)
                self.connections.read(opened)
                sent = found
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), _WATCH_SECONDS)


def request_version(request: Any) -> str | None:
    version: str = request.model_version if hasattr(request, "model_version") else request.version
    return version or None


def _method(endpoint: str, message: str, answer: Callable[[Call, Any], Awaitable[Any]]) -> Method:
    return Method(endpoint, message_class(message), answer)


def _generic_handler(service: str, methods: Mapping[str, Callable[[str, Any], Awaitable[None]]]) -> Any:
    def handler(path: str, handle: Callable[[str, Any], Awaitable[None]]) -> Any:
        async def behaviour(_: Any, context: Any) -> None:
            try:
                await handle(path, context)
            except grpc.aio.InternalError as e:  # the client has gone: gRPC would log a traceback
                raise asyncio.CancelledError from e

        return grpc.stream_stream_rpc_method_handler(behaviour)

    handlers = {name: handler(f"/{service}/{name}", handle) for name, handle in methods.items()}
    return grpc.method_handlers_generic_handler(service, handlers)


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _client_ip(peer: str) -> str:
    """Return the address of gRPC's `ipv4:10.0.0.7:51234` or `ipv6:%5B::1%5D:51234`."""
    _, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]")
