"""What the images' HEALTHCHECK asks and makes of the answer: a process as Docker runs it, and a server that answers."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.harness.processes import ROOT, free_port

SCRIPT = ROOT / "deploy/images/ops_answers.py"


class _Ops(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/livez" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    """An ops port that is alive and not ready."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Ops) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def asked(path: str, default_port: int, environment: dict[str, str]) -> tuple[int, str]:
    """Exit code and output."""
    argv = [sys.executable, "-I", "-S", SCRIPT, "INGEST", str(default_port), path]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout.strip()


def test_it_goes_by_the_status(port: int) -> None:
    """200 is healthy, another answer is not, and what came is told."""
    assert asked("/livez", port, {}) == (0, "/livez: 200")
    assert asked("/readyz", port, {}) == (1, "/readyz: 503")


@pytest.mark.parametrize("host", ["", "0.0.0.0", "127.0.0.1", "localhost"])
def test_it_asks_where_the_process_listens(host: str, port: int) -> None:
    """The tier's own variables, an empty one as if it were absent; all addresses are asked at the loopback one."""
    variables = {"INGEST_OPS_HOST": host, "INGEST_OPS_PORT": str(port), "UPLOADER_OPS_PORT": "1"}
    assert asked("/livez", 1, variables)[0] == 0
    assert asked("/livez", port, {**variables, "INGEST_OPS_PORT": ""})[0] == 0


def test_nobody_there_is_not_healthy() -> None:
    """A closed port, and a port that is no number."""
    code, told = asked("/livez", free_port(), {})
    assert code == 1
    assert told.startswith("/livez: ")
    assert asked("/livez", 1, {"INGEST_OPS_PORT": "x"})[0] == 1
