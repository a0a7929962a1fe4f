"""An ingest that answers by script, on a real socket: what a client does with each answer is then seen from outside.

Owns a listening socket, a script of steps taken one a request, and the list of what arrived. Judges nothing. Behind the
end of its script it answers 200, or passes requests on to a real ingest where it was given one.
"""

import json
import socket
import struct
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import ClassVar, Self

from services.ingest.problems import MEDIA_TYPE, Code, Problem
from tests.harness.http_client import request

_ACCEPTED = "application/json"
_UPSTREAM_TIMEOUT_S = 30
_PASSED_ON = ("Authorization", "Content-Type", "Idempotency-Key")
_LINGER_S = 2.0  # ingest's own
_NO_LINGER = struct.pack("ii", 1, 0)  # a close that is a reset


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Early:
    """An answer to the head alone. The client has a moment to read it, then the connection is reset over its body."""

    reply: Reply


class Lost(Enum):
    """What a client gets instead of an answer."""

    DROP = auto()
    """The connection is reset once the request has been read."""
    CUT = auto()
    """A 200 begins, and the connection is reset in the middle of it."""
    SHORT = auto()
    """A 200 begins, and the connection is closed in the middle of it, in good order."""
    HANG = auto()
    """Nothing comes until the stand is closed."""
    WRITTEN = auto()
    """The real ingest takes the request and answers it; the client never hears of it."""


Step = Reply | Early | Lost


@dataclass(slots=True)
class Arrival:
    """One request as it came. Times are monotonic seconds; header names are in small letters."""

    at_s: float
    method: str
    path: str
    headers: dict[str, str]
    body: bytes  # empty where the answer came first
    answered_at_s: float = 0.0  # just before the first byte of the answer


def refusal(code: Code, detail: str, *, retry_after_s: int | None = None) -> Reply:
    """A problem document as ingest sends it."""
    headers = {"Content-Type": MEDIA_TYPE.decode()}
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    return Reply(code.value.status, Problem(code, detail).body("request-of-a-test"), headers)


def accepted_ids(key: str, count: int) -> list[str]:
    """The ids in the stand's own 200, of the form that ingest gives them; the hash is always the same."""
    return [f"{key}-{index}-0badcafe" for index in range(count)]


class ScriptedIngest:
    """The stand. One step a request, whoever sends it; a context manager."""

    def __init__(self, script: Iterable[Step] = (), *, upstream: str | None = None) -> None:
        self.arrivals: list[Arrival] = []
        self._script = iter(script)
        self._upstream = upstream
        self._lock = threading.Lock()  # of the script and the arrivals
        self._closing = threading.Event()
        stand = self

        class Handler(_Handler):
            serve = staticmethod(stand._serve)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="scripted-ingest")

    @property
    def url(self) -> str:
        """Where collections are posted."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1/collections"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def _serve(self, handler: "_Handler", arrival: Arrival) -> None:
        with self._lock:
            self.arrivals.append(arrival)
            step = next(self._script, None)
        if isinstance(step, Early):
            handler.send(step.reply)
            self._closing.wait(_LINGER_S)
            handler.reset()
            return
        arrival.body = handler.read_body()
        if step is Lost.HANG:
            self._closing.wait()
        reply = self._reply(arrival, step)
        arrival.answered_at_s = time.monotonic()
        match step:
            case Lost.CUT:
                handler.send(reply, cut_at=len(reply.body) // 2)
                handler.reset()
            case Lost.SHORT:
                handler.send(reply, cut_at=len(reply.body) // 2)
                handler.close_connection = True
            case Lost():
                handler.reset()
            case _:
                handler.send(reply)

    def _reply(self, arrival: Arrival, step: Step | None) -> Reply:
        if isinstance(step, Reply):
            return step
        if self._upstream is not None and step in {None, Lost.WRITTEN}:
            kept = {name: arrival.headers[name.lower()] for name in _PASSED_ON if name.lower() in arrival.headers}
            answer = request(self._upstream, arrival.body, headers=kept, timeout_s=_UPSTREAM_TIMEOUT_S)
            return Reply(answer.status, answer.body, {"Content-Type": answer.headers["content-type"]})
        ids = accepted_ids(arrival.headers.get("idempotency-key", ""), len(json.loads(arrival.body)["data"]))
        body = json.dumps({"accepted": len(ids), "ids": ids}).encode()
        return Reply(200, body, {"Content-Type": _ACCEPTED})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    serve: "ClassVar[staticmethod[[_Handler, Arrival], None]]"  # the stand's own

    def handle_expect_100(self) -> bool:
        """Say 100 only once the body is wanted."""
        return True

    def do_POST(self) -> None:  # the name that http.server calls
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.serve(self, Arrival(time.monotonic(), self.command, self.path, headers, b""))

    def read_body(self) -> bytes:
        """The request's body, to its announced end."""
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        return self.rfile.read(int(self.headers["Content-Length"]))

    def send(self, reply: Reply, *, cut_at: int | None = None) -> None:
        """Answer; with `cut_at`, only so many bytes of the body."""
        self.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body[:cut_at])
        self.wfile.flush()

    def reset(self) -> None:
        """Reset the connection."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in http.server
        """Say nothing: the tests look at the arrivals."""
