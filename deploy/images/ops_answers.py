"""HEALTHCHECK of both images: `ops_answers.py INGEST 8082 /livez` leaves with 0 if the ops port answers 200, else 1.

Owns one question to the process beside it, where its own variables (`INGEST_OPS_HOST`, `INGEST_OPS_PORT`) say that it
listens. Runs with `-I -S` every few seconds, so it imports next to nothing; a shell or curl is not needed.
"""

import os
import socket
import sys

_TIMEOUT_S = 4.0
_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # listens on all: ask at the loopback address


def status(tier: str, default_port: str, path: str) -> int:
    """The status of a GET at the tier's ops port.

    Raises:
        OSError: nobody answers there, or not in time.
        ValueError: what answers is not HTTP.

    """
    host = os.environ.get(f"{tier}_OPS_HOST", "")
    port = os.environ.get(f"{tier}_OPS_PORT") or default_port  # an empty variable counts as absent, as in the settings
    with socket.create_connection((_EVERYWHERE.get(host, host), int(port)), _TIMEOUT_S) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: ops\r\nConnection: close\r\n\r\n".encode())
        head = connection.makefile("rb").readline(1024).split(b" ", 2)
    if len(head) < 2 or not head[0].startswith(b"HTTP/"):  # noqa: PLR2004 - version and status
        raise ValueError(f"not HTTP: {head!r}")
    return int(head[1])


def main(tier: str, default_port: str, path: str) -> int:
    """The exit code; why it is 1 stands on standard output, which Docker keeps (`docker inspect`)."""
    try:
        answer = status(tier, default_port, path)
    except (OSError, ValueError) as error:
        answer = 0
        print(f"{path}: {error}")  # noqa: T201 - as the docstring says
    else:
        print(f"{path}: {answer}")  # noqa: T201
    return 0 if answer == 200 else 1  # noqa: PLR2004


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
