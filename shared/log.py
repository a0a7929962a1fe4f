"""How both tiers log: JSON lines off a terminal and readable lines on it. Knows no metric.

Fields go in `extra={...}`. Never a token, never a payload.
"""

import json
import logging
import sys
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The request that the running code serves: every log line of it carries the id."""

_RESERVED = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields = {key: value for key, value in vars(record).items() if key not in _RESERVED}
    request_id = REQUEST_ID.get()
    if request_id is not None:
        fields.setdefault("request_id", request_id)
    return fields


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time level logger message`, the fields of `extra`, and `error` with its trace."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one log record."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = "".join(traceback.format_exception(record.exc_info[1]))
        return json.dumps(line, default=str, ensure_ascii=False)


class ReadableFormatter(logging.Formatter):
    """For a person: time, level, message, then `key=value` of the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one log record."""
        when = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        fields = "".join(f" {key}={value}" for key, value in _fields(record).items())
        line = f"{when} {record.levelname:<7} {record.name}: {record.getMessage()}{fields}"
        if record.exc_info and record.exc_info[1] is not None:
            line += "\n" + "".join(traceback.format_exception(record.exc_info[1])).rstrip()
        return line


REPEAT_AFTER_S = 10.0
_MESSAGES_MAX = 256


class _ClientFilter(logging.Filter):
    """Makes aiokafka's log a person's: what it retries by itself is a warning, and is told once in REPEAT_AFTER_S.

    While a broker is away it says the same four sentences forty times a second, for as long as that takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told_s: dict[str, float] = {}  # when each message was last let through; at most _MESSAGES_MAX

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to let the record through."""
        if not record.name.startswith("aiokafka"):
            return True
        if record.levelno == logging.ERROR:
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        message = record.getMessage()
        if record.created - self._told_s.get(message, -REPEAT_AFTER_S) < REPEAT_AFTER_S:
            return False
        if len(self._told_s) >= _MESSAGES_MAX:
            self._told_s.clear()
        self._told_s[message] = record.created
        return True


class _Stamp(logging.Filter):
    """Gives every record the fields of its process."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        super().__init__()
        self._fields = fields

    def filter(self, record: logging.LogRecord) -> bool:
        """Let it through, stamped; what a line says of itself stays."""
        for name, value in self._fields.items():
            vars(record).setdefault(name, value)
        return True


def configure_logging(level: str, stream: TextIO = sys.stderr, **fields: object) -> None:
    """Send every log line of the process to `stream`, readable on a terminal, else as JSON, with these fields.

    The clients' own chatter is cut to warnings: what matters of theirs, we log with fields.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(ReadableFormatter() if stream.isatty() else JsonFormatter())
    handler.addFilter(_ClientFilter())
    if fields:
        handler.addFilter(_Stamp(fields))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("aiokafka", "botocore", "aiobotocore", "uvicorn", "uvicorn.error", "asyncio"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
