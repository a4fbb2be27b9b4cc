"""The wsgi_bridge: a request that is here goes through the WSGI application, and its answer is put up to be sent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from gunicorn.http import errors as http_errors  # type: ignore[import-untyped]
from gunicorn.http import wsgi

from service.server.connection import Connection
from service.server.error_responses import error_response
from service.server.request_reader import BufferedRequest
from service.telemetry.request_record import RequestRecorder


class WsgiBridge:
    def __init__(
        self, application: Callable[..., Any], cfg: Any, recorder: RequestRecorder, log: logging.Logger
    ) -> None:
        self._application, self._cfg, self._recorder, self.log = application, cfg, recorder, log

    def handle(self, connection: Connection, request: BufferedRequest, *, close: bool) -> bool:
        """Has the application write to what the connection sends; whether nothing may follow, as `close` wants it."""
        head = request.head
        head._expected_100_continue = False
        try:
            response, environ = wsgi.create(head, connection, connection.peer, connection.local_address, self._cfg)
        except (http_errors.ConfigurationProblem, ValueError) as e:  # a head that no address of ours can have
            message = f"the request is not well-formed HTTP: {e}"
            connection.send_buffer += error_response(
                self._recorder, connection, "400 Bad Request", "bad_request", message
            )
            return True
        environ["wsgi.input"] = request.body
        environ["forward_pass.arrived"], environ["forward_pass.request"] = connection.received_at, request
        if close:
            response.force_close()
        try:
            answer = self._application(environ, response.start_response)
            try:
                for part in answer:
                    response.write(part)
                response.close()
            finally:
                if hasattr(answer, "close"):
                    answer.close()
        except Exception:
            self.log.exception("%s %s crashed outside the application's own handling", head.method, head.path)
            status, message = "500 Internal Server Error", "the service failed"
            connection.send_buffer[:] = error_response(self._recorder, connection, status, "internal_error", message)
            return True
        return bool(response.should_close())
