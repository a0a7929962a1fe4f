"""Loopback ports: a preferred one if nobody has it, else one aside.

Never from the range that the system hands out to outgoing connections (32768 and up on Linux): a client that keeps
trying to reach a stopped server on such a port can be given that very port, connects to itself, and the server never
gets it back.
"""

import contextlib
import random
import socket

LOOPBACK = "127.0.0.1"
_ASIDE_STEP = 10  # 8080, 8081, 8082 and 8083 move to 8090.. and so on: neighbours stay neighbours
_ASIDE_TRIES = 200
_ANY_FIRST, _ANY_LAST = 20_000, 32_000


def is_free(port: int) -> bool:
    """Whether a server could listen on the port of the loopback address now."""
    with contextlib.closing(socket.socket()) as probe:
        probe.settimeout(0.5)
        if probe.connect_ex((LOOPBACK, port)) == 0:  # some systems let a second server bind beside a wildcard one
            return False
    with contextlib.closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no obstacle
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port(preferred: int | None = None) -> int:
    """`preferred` if it is free, else the next free one in steps of 10; without a preference any free one.

    Raises:
        OSError: none of the ports that were tried is free.

    """
    if preferred is None:
        candidates = random.sample(range(_ANY_FIRST, _ANY_LAST), _ASIDE_TRIES)
    else:
        candidates = [preferred + _ASIDE_STEP * n for n in range(_ASIDE_TRIES)]
    for port in candidates:
        if is_free(port):
            return port
    raise OSError(f"no free port on {LOOPBACK} among {_ASIDE_TRIES} from {candidates[0]}")
