"""The operator's port of both tiers: `/livez`, `/readyz` with reasons, `/metrics`.

Owns readiness as a value and the three routes. Liveness says only that the loop turns; it never asks Kafka or S3,
because a restart heals neither.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

_BACKLOG = 2048


class Readiness:
    """Why this process is not ready, by condition. Each owner sets its own condition; all must hold.

    Conditions named at construction start as failed ("starting"), so that nothing is ready by omission.
    """

    def __init__(self, *conditions: str) -> None:
        self._reasons: dict[str, str] = dict.fromkeys(conditions, "starting")  # condition → why it fails
        self._notes: dict[str, str] = {}  # what a person should know although all is well
        self._named = dict.fromkeys(conditions)  # every condition that was ever told of, in that order

    def hold(self, condition: str) -> None:
        """The condition holds now."""
        self._named.setdefault(condition)
        self._reasons.pop(condition, None)

    def fail(self, condition: str, reason: str) -> None:
        """The condition fails; `reason` is for a person."""
        self._named.setdefault(condition)
        self._reasons[condition] = reason

    def note(self, name: str, text: str) -> None:
        """Tell something that is over and cannot be mended, as long as this process lives. It stays ready."""
        self._notes[name] = text

    @property
    def notes(self) -> dict[str, str]:
        """What was noted, by name."""
        return dict(self._notes)

    @property
    def reasons(self) -> dict[str, str]:
        """Why not, by condition; empty when ready."""
        return dict(self._reasons)

    @property
    def conditions(self) -> dict[str, bool]:
        """Whether each condition holds; one that was told of once stays here."""
        return {condition: condition not in self._reasons for condition in self._named}

    @property
    def ready(self) -> bool:
        """Whether all conditions hold."""
        return not self._reasons


async def _nothing() -> None:
    """A process that tells of itself alone has nobody to ask."""


@dataclass(frozen=True, slots=True)
class Others:
    """What a process that speaks for others adds to the ops routes.

    `ask` brings readiness and registry up to date, within a bound that is its own to keep; `wedged` says which of the
    others do not turn, and why one thinks so.
    """

    ask: Callable[[], Awaitable[None]] = _nothing
    wedged: Callable[[], Mapping[str, str]] = dict


_NOBODY = Others()


def ops_app(
    readiness: Readiness, registry: CollectorRegistry, more: Sequence[BaseRoute] = (), others: Others = _NOBODY
) -> Starlette:
    """The ops routes as an ASGI application; `more` are a tier's own."""

    async def livez(_: Request) -> Response:
        wedged = others.wedged()
        if wedged:
            return JSONResponse({"live": False, "reasons": dict(wedged)}, status_code=503)
        return JSONResponse({"live": True})

    async def readyz(_: Request) -> Response:
        await others.ask()
        reasons = readiness.reasons
        body = {"ready": not reasons, "reasons": reasons} | ({"notes": readiness.notes} if readiness.notes else {})
        return JSONResponse(body, status_code=503 if reasons else 200)

    async def metrics(_: Request) -> Response:
        await others.ask()
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics), *more])


def listen(host: str, port: int, variable: str) -> socket.socket:
    """Bind a listening TCP socket.

    Args:
        host: address or name; one with a colon is IPv6.
        port: 0 takes any free one.
        variable: the setting that names the port, for the error.

    Raises:
        OSError: with a message that names the variable, the address and the cause.

    """
    sock = bind(host, port, variable)
    try:
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise _cannot_listen(host, port, variable, error) from error
    return sock


def bind(host: str, port: int, variable: str, *, shared: bool = False) -> socket.socket:
    """Bind a TCP socket that does not listen yet; the other arguments and errors are those of `listen`.

    Args:
        host: as in `listen`.
        port: as in `listen`.
        variable: as in `listen`.
        shared: others that were bound so may have the port, too, and all of them listen (SO_REUSEPORT).

    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise _cannot_listen(host, port, variable, error) from error
    sock.setblocking(False)
    return sock


def claim(host: str, port: int, variable: str) -> socket.socket:
    """Hold a port that nobody listens on, so that processes of ours can `bind` to it shared. Takes no connection.

    It shares only once it has the port: a stranger's listener that shares would be joined without a word.
    """
    sock = bind(host, port, variable)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return sock


def _cannot_listen(host: str, port: int, variable: str, error: OSError) -> OSError:
    return OSError(f"{variable}={port}: cannot listen on {host}:{port}: {error.strerror or error}")


class _QuietServer(uvicorn.Server):
    """A uvicorn server without signal handlers: the process that embeds it owns the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serve_ops(
    sock: socket.socket,
    readiness: Readiness,
    registry: CollectorRegistry,
    more: Sequence[BaseRoute] = (),
    others: Others = _NOBODY,
) -> AsyncIterator[None]:
    """Serve the ops routes, and a tier's own, on a bound socket for as long as the context lasts."""
    config = uvicorn.Config(
        ops_app(readiness, registry, more, others),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    server = _QuietServer(config)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(sockets=[sock]))
        try:
            yield
        finally:
            server.should_exit = True
