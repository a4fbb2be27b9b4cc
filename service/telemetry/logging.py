"""Logs to standard error, one line per record, as text or JSON."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from model_store.utils.printable import printable
from service.telemetry.request_record import RequestRecord

_TEXT_FORMAT = "%(asctime)s %(levelname)s [%(process)d] %(message)s"
_DATE_FORMAT = "%Y-%m-%dT%H:%M:%S%z"


_MAX_MESSAGE_CHARACTERS = 8000


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object, with the fields of a request."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "pid": record.process,
            "logger": record.name,
        }
        request = record.msg if isinstance(record.msg, RequestRecord) else getattr(record, "request_record", None)
        entry["message"] = "answered" if request is record.msg else record.getMessage()[:_MAX_MESSAGE_CHARACTERS]
        if request is not None:
            entry |= request.as_dict()
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=True)


class TextFormatter(logging.Formatter):
    """Formats a record as a line of visible text. The formatted time is cached for one second."""

    _cached_second, _cached_text = 0, ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        if int(record.created) != self._cached_second:
            self._cached_text, self._cached_second = super().formatTime(record, datefmt), int(record.created)
        return self._cached_text

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = printable(record.message, max_length=_MAX_MESSAGE_CHARACTERS)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return printable(super().formatException(ei), keep="\n")


def log_to_stderr(level: str, log_format: str) -> None:
    # No format uses the source line, thread or process name: do not look them up for each record.
    logging._srcfile = None
    logging.logThreads = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter(_TEXT_FORMAT, _DATE_FORMAT))
    logger = logging.getLogger("service")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())
    # Libraries' logs and warnings in the same format.
    logging.captureWarnings(True)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


class ServerLogger(Logger):  # type: ignore[misc]
    """gunicorn's log in the service's format."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in logging.getLogger("gunicorn.error").handlers:
            for ours in logging.getLogger("service").handlers:
                handler.setFormatter(ours.formatter)
