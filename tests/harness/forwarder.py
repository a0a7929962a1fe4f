"""A TCP port that passes everything on to another, which may be changed: a bootstrap address that outlives brokers."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

from deploy.local.ports import LOOPBACK

_CHUNK_BYTES = 65_536


class Forwarder:
    """Listens from `__enter__` on; new connections go to `target_port` as it is then."""

    def __init__(self, port: int, target_port: int) -> None:
        self.port = port
        self.target_port = target_port
        self.connections = 0  # taken so far
        self._listener = socket.create_server((LOOPBACK, port))
        self._thread = threading.Thread(target=self._accept, name="forwarder", daemon=True)

    @property
    def address(self) -> str:
        """As clients want it."""
        return f"{LOOPBACK}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            self.connections += 1
            try:
                server = socket.create_connection((LOOPBACK, self.target_port), timeout=5)
            except OSError:  # nobody there: the client sees its connection closed
                client.close()
                continue
            server.settimeout(None)
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass bytes on until one side is closed; then close the other."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(_CHUNK_BYTES):
            sink.sendall(chunk)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
