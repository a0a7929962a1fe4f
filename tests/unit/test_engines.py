"""The choice of the broker: by variable, else by an engine that answers, else embedded; asked in about a second."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.engines import GIVEN, Source, docker_answers, source


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A listening socket where DOCKER_HOST says; nobody accepts yet."""
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))
        sock.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        monkeypatch.delenv(GIVEN, raising=False)
        yield sock


def test_an_engine_that_answers_is_used(listener: socket.socket) -> None:
    """A ping that says OK is an engine."""

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")

    engine = threading.Thread(target=answer)
    engine.start()
    assert source() is Source.CONTAINER
    engine.join(5)


def test_a_silent_or_missing_engine_is_none(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stale socket, a closed port and an address of another kind hold the tests up for a second at most."""
    assert listener.fileno() >= 0
    assert source() is Source.EMBEDDED  # it listens, and never answers
    for address in ("unix:///nowhere.sock", "tcp://127.0.0.1:1", "ssh://somewhere"):
        monkeypatch.setenv("DOCKER_HOST", address)
        assert not docker_answers()


def test_a_given_broker_comes_first(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names a broker gets it, engine or not."""
    assert listener.fileno() >= 0
    monkeypatch.setenv(GIVEN, "somewhere:9092")
    assert source() is Source.GIVEN
