"""The HTTP application: the hot route in front of a FastAPI app that brings `/docs` and `/openapi.json`.

Owns the routes and the form of every answer that the hot route does not give itself: 404, 405 and 500 are problem
documents too, and a stack trace never leaves the process. The hot route is taken before the framework's middleware and
router, which cost more than slicing the body does; it catches its own errors, and needs nothing of them.
"""

import logging
import os
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from services.ingest.endpoint import CollectionsEndpoint
from services.ingest.problems import MEDIA_TYPE, Code, Problem
from services.ingest.request import COLLECTIONS_PATH, read_head
from services.ingest.schema import extend

logger = logging.getLogger("spillway.ingest.app")

_CODES = {404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED, 500: Code.INTERNAL_ERROR}


class IngestApp(FastAPI):
    """FastAPI with the hot route before it, and that route's hand-written part of the OpenAPI document.

    Args:
        collections: serves COLLECTIONS_PATH, with every method. No middleware of the application sees its requests.

    """

    def __init__(self, collections: CollectionsEndpoint) -> None:
        super().__init__(
            title="Spillway ingest",
            version="1",
            summary="Collections of payloads, durable before the answer",
            redirect_slashes=False,  # a POST sent elsewhere by a 307 would send its body twice
            exception_handlers={HTTPException: _http_problem, Exception: _unexpected},
        )
        self._collections = collections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["path"] == COLLECTIONS_PATH:
            await self._collections(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, built once."""
        if self.openapi_schema is None:
            self.openapi_schema = extend(super().openapi(), COLLECTIONS_PATH)
        return self.openapi_schema


async def _http_problem(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = getattr(error, "headers", None) or {}
    detail = f"{request.method[:32]} {request.url.path[:256]}"
    code = _CODES.get(status)
    if code is None:
        return _response(request, Problem(Code.HTTP_ERROR, f"{detail}: {getattr(error, 'detail', '')}", (), status))
    return _response(
        request, Problem(code, detail, tuple((k.lower().encode(), v.encode()) for k, v in headers.items()))
    )


async def _unexpected(request: Request, error: Exception) -> Response:
    logger.error("unexpected error", exc_info=error, extra={"path": request.url.path})
    return _response(request, Problem(Code.INTERNAL_ERROR, "something went wrong here"))


def _response(request: Request, problem: Problem) -> Response:
    head = read_head(request.scope["headers"])
    request_id = head.request_id or os.urandom(16).hex()
    response = Response(problem.body(request_id), problem.status_code, media_type=MEDIA_TYPE.decode())
    response.raw_headers.append((b"x-request-id", request_id.encode("ascii")))
    response.raw_headers.extend(problem.headers)
    if head.has_body:  # nobody has read it
        response.raw_headers.append((b"connection", b"close"))
    return response
