"""The routes of the status page: `/`, `/status.json`, and the operator's pages under `/operations/`.

Owns the page's headers and how its parts become one document: style and script stand inside it, named by their sums in
the content security policy, so that nothing else can run or be fetched, whatever a client's id or an error of S3 says.
All of it can be read by whoever reaches the port; nothing can be done from here.
"""

import base64
import hashlib
import html
import time
from collections.abc import Sequence
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from services.uploader.status import manual
from services.uploader.status.document import status_document
from services.uploader.status.observer import Observer
from services.uploader.status.process import Process


def status_routes(observer: Observer, process: Process) -> Sequence[BaseRoute]:
    """The routes, for `serve_ops`."""
    style, script = _part("page.css"), _part("page.js")
    page = _part("page.html").replace("/*style*/", style).replace("/*script*/", script)
    headers = _headers(style, script)

    async def index(_: Request) -> Response:
        return HTMLResponse(page, headers=headers)

    async def status(_: Request) -> Response:
        unix_s = time.time()
        document = status_document(process.look(time.monotonic(), unix_s), observer.observed(), unix_s)
        return JSONResponse(document, headers={"Cache-Control": "no-store"})

    async def operations(request: Request) -> Response:
        name = request.path_params.get("name", manual.INDEX)
        found = manual.page(name)
        if found is None:
            there = ", ".join(manual.names())
            return PlainTextResponse(f"no such page; there are: {there}\n", status_code=404)
        title, body = found
        text = _part("manual.html").replace("/*style*/", style).replace("<!--title-->", html.escape(title))
        return HTMLResponse(text.replace("<!--body-->", body), headers=headers)

    async def operations_index(_: Request) -> Response:
        return RedirectResponse("operations/")

    return [
        Route("/", index),
        Route("/status.json", status),
        Route("/operations", operations_index),
        Route("/operations/{name}", operations),
        Route("/operations/", operations),
    ]


def _part(name: str) -> str:
    return (files("services.uploader.status") / name).read_text(encoding="utf-8")


def _headers(style: str, script: str) -> dict[str, str]:
    policy = {
        "default-src": "'none'",
        "style-src": _sum(style),
        "script-src": _sum(script),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


def _sum(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
