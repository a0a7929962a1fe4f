"""The process behind `EmbeddedS3`: moto's S3 on a threaded server, as `python -m deploy.local.s3_server HOST PORT`.

moto's own command closes the connection after every request and logs a line for each. Under a real client that is a
connect a PUT, thousands of sockets in TIME_WAIT, and a log that grows with the load; measured here it is also
slower. So one method of its request handler is ours: the body is read whole, the answer is written at once, the
connection stays.
"""

import io
import signal
import sys
from http import HTTPStatus
from types import FrameType
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server


class KeepAliveHandler(MotoRequestHandler):
    """One connection and its requests, one after the other."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65_536  # head and body in one write

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing of a request that was answered; errors still reach the log."""

    def handle_expect_100(self) -> bool:
        """Leave `100 Continue` to `run_wsgi`, which flushes it."""
        return True

    def run_wsgi(self) -> None:
        """Answer one request."""
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.wfile.flush()
        environ = self.make_environ()
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            body = environ["wsgi.input"].read()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        environ["wsgi.input"] = io.BytesIO(body)  # read whole: what the application leaves would be the next request
        heads: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], _error: Any = None) -> Any:
            heads.append((status, headers))

        answer = b"".join(self.server.app(environ, start_response))
        status, headers = heads[-1]
        self._write(status, headers, answer)

    def _write(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        code = int(status.split(" ", 1)[0])
        bodiless = self.command == "HEAD" or code in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
        self.send_response(code, status.partition(" ")[2])
        for name, value in headers:
            if name.lower() == "connection" or (name.lower() == "content-length" and not bodiless):
                continue
            self.send_header(name, value)
        if not bodiless:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not bodiless:
            self.wfile.write(body)
        self.wfile.flush()


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def main(host: str, port: int) -> None:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGTERM, _leave)
    application: Any = DomainDispatcherApplication(create_backend_app)
    server = make_server(host, port, application, threaded=True, request_handler=KeepAliveHandler)
    print(f"moto's S3 on {host}:{port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
