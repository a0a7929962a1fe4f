"""Which broker the tests get, and whether a Docker engine answers. Asks quickly, starts nothing, warns of nothing."""

import functools
import http.client
import os
import shutil
import socket
import subprocess
from enum import Enum
from urllib.parse import urlsplit

GIVEN = "SPILLWAY_TEST_BOOTSTRAP_SERVERS"
"""The variable that names a broker to test against."""

_PROBE_S = 1.0


class Source(Enum):
    """Where the shared broker comes from."""

    GIVEN = "given"
    CONTAINER = "container"
    EMBEDDED = "embedded"


def source() -> Source:
    """A given broker before a container, a container before the embedded one."""
    if os.environ.get(GIVEN):
        return Source.GIVEN
    return Source.CONTAINER if docker_answers() else Source.EMBEDDED


class _UnixConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


def docker_answers() -> bool:
    """Whether the engine that DOCKER_HOST names, or the local socket, answers a ping within a second."""
    address = urlsplit(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
    if address.scheme == "unix":
        connection: http.client.HTTPConnection = _UnixConnection(address.path, timeout=_PROBE_S)
    elif address.scheme == "tcp" and address.hostname:
        connection = http.client.HTTPConnection(address.hostname, address.port or 2375, timeout=_PROBE_S)
    else:
        return False
    try:
        connection.request("GET", "/_ping", headers={"Host": "docker"})
        return connection.getresponse().read() == b"OK"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@functools.cache
def docker_missing() -> str | None:
    """What of Docker a test of the images would miss here, as the reason of its skip; None where all is there."""
    if not docker_answers():
        return "no Docker engine answers"
    return compose_missing()


@functools.cache
def compose_missing() -> str | None:
    """Why compose files cannot even be read here; needs no engine."""
    if shutil.which("docker") is None:
        return "no docker command on PATH"
    asked = subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=30, check=False)  # noqa: S607
    return "docker has no compose plugin" if asked.returncode else None
