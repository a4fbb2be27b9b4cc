"""The log: to standard error, a line each, as text for people or as JSON for programs."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from service.telemetry.request_record import RequestRecord

_TEXT_FORMAT = "%(asctime)s %(levelname)s [%(process)d] %(message)s"
_DATE_FORMAT = "%Y-%m-%dT%H:%M:%S%z"


class JsonFormatter(logging.Formatter):
    """A record as one JSON object; what is known of a request stands in fields of its own."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "pid": record.process,
            "logger": record.name,
        }
        request = record.msg if isinstance(record.msg, RequestRecord) else getattr(record, "request_record", None)
        entry["message"] = "answered" if request is record.msg else record.getMessage()
        if request is not None:
            entry |= request.as_dict()
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=True)


class TextFormatter(logging.Formatter):
    """A record as a line for people. Lines of one second share the text of its time."""

    _cached_second, _cached_text = 0, ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        if int(record.created) != self._cached_second:
            self._cached_text, self._cached_second = super().formatTime(record, datefmt), int(record.created)
        return self._cached_text


def log_to_stderr(level: str, log_format: str) -> None:
    # What no line of ours tells need not be found out for each: where in the code it was logged, and by which thread.
    logging._srcfile = None
    logging.logThreads = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter(_TEXT_FORMAT, _DATE_FORMAT))
    logger = logging.getLogger("service")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())
    # What libraries have to say, of which logging by itself would write the words alone.
    logging.captureWarnings(True)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


class ServerLogger(Logger):  # type: ignore[misc]
    """gunicorn's own log, in the format of ours."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in self.error_log.handlers:
            for ours in logging.getLogger("service").handlers:
                handler.setFormatter(ours.formatter)
