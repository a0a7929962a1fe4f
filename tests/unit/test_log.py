"""Logs: JSON lines, and lines for a person."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest

from shared.log import REQUEST_ID, JsonFormatter, configure_logging


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Put the root logger back as pytest had it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_off_a_terminal_each_line_is_one_json_object() -> None:
    """Time, level, logger, message, the fields given, and the trace of an error; line breaks stay inside the line."""
    stream = io.StringIO()
    configure_logging("info", stream)
    logging.getLogger("a").info("hello\nthere", extra={"partition": 3})
    try:
        int("broken")
    except ValueError:
        logging.getLogger("a").exception("failed")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["level"], first["logger"], first["message"], first["partition"]) == ("info", "a", "hello\nthere", 3)
    assert first["time"].endswith("+00:00")
    assert "ValueError: invalid literal" in second["error"]


def test_on_a_terminal_lines_are_for_a_person() -> None:
    """No JSON; the fields stand behind the message."""
    stream = Terminal()
    configure_logging("INFO", stream)
    logging.getLogger("a").warning("hello", extra={"partition": 3})
    assert stream.getvalue().endswith("WARNING a: hello partition=3\n")


def test_what_a_client_retries_is_a_warning() -> None:
    """Aiokafka's errors come as warnings, its chatter not at all; ours stay what they are."""
    stream = io.StringIO()
    configure_logging("INFO", stream)
    logging.getLogger("aiokafka.consumer").error("coordinator not there yet")
    logging.getLogger("aiokafka.consumer").info("chatter")
    logging.getLogger("services.uploader").error("ours")
    assert [json.loads(line)["level"] for line in stream.getvalue().splitlines()] == ["warning", "error"]


def test_what_a_client_says_again_and_again_is_told_now_and_then() -> None:
    """The same sentence 40 times a second for 25 s: three lines. Another sentence, and our own, are not held back."""
    stream = io.StringIO()
    configure_logging("INFO", stream)
    for i in range(1000):
        record = logging.makeLogRecord(
            {"name": "aiokafka", "levelno": logging.WARNING, "levelname": "WARNING", "msg": "away", "created": i / 40}
        )
        logging.getLogger().handle(record)
    for name in ("aiokafka", "services.uploader", "services.uploader"):
        logging.getLogger(name).warning("something else")
    told = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert told == ["away"] * 3 + ["something else"] * 3  # at 0, 10 and 20 s


def test_the_request_stands_in_every_line_of_its_task() -> None:
    """Whatever logs while a request is served carries its id; other tasks' lines do not, and a field of the same name
    is not overwritten.
    """
    lines: list[dict[str, object]] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(JsonFormatter().format(record)))

    logger = logging.getLogger("spillway.test.request")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler := Collect())

    async def serve(request_id: str) -> None:
        REQUEST_ID.set(request_id)
        logger.info(request_id)

    async def main() -> None:
        await asyncio.gather(serve("a"), serve("b"))
        logger.info("none")
        logger.info("own", extra={"request_id": "c"})

    try:
        asyncio.run(main())
    finally:
        logger.removeHandler(handler)
    assert [(line["message"], line.get("request_id")) for line in lines] == [
        ("a", "a"),
        ("b", "b"),
        ("none", None),
        ("own", "c"),
    ]
