"""The operator's port of both tiers: `/livez`, `/readyz` with reasons, `/metrics`.

Owns readiness as a value and the three routes. Liveness says only that the loop turns; it never asks Kafka or S3,
because a restart heals neither.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, Sequence

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route


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


def ops_app(readiness: Readiness, registry: CollectorRegistry, more: Sequence[BaseRoute] = ()) -> Starlette:
    """The ops routes as an ASGI application; `more` are a tier's own."""

    async def livez(_: Request) -> Response:
        return JSONResponse({"live": True})

    async def readyz(_: Request) -> Response:
        reasons = readiness.reasons
        body = {"ready": not reasons, "reasons": reasons} | ({"notes": readiness.notes} if readiness.notes else {})
        return JSONResponse(body, status_code=503 if reasons else 200)

    async def metrics(_: Request) -> Response:
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
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(2048)
    except OSError as error:
        sock.close()
        raise OSError(f"{variable}={port}: cannot listen on {host}:{port}: {error.strerror or error}") from error
    sock.setblocking(False)
    return sock


class _QuietServer(uvicorn.Server):
    """A uvicorn server without signal handlers: the process that embeds it owns the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serve_ops(
    sock: socket.socket, readiness: Readiness, registry: CollectorRegistry, more: Sequence[BaseRoute] = ()
) -> AsyncIterator[None]:
    """Serve the ops routes, and a tier's own, on a bound socket for as long as the context lasts."""
    config = uvicorn.Config(
        ops_app(readiness, registry, more),
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
