"""Tokens of files, and what is patched into aiokafka."""

import asyncio
import inspect
from pathlib import Path

import aiokafka.client
import aiokafka.conn
import pytest
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaError

from shared import sasl


@pytest.mark.parametrize(
    "content",
    [b"", b" \n", b"a\x01b", b"a\nb", "é".encode(), b"x" * (sasl.TOKEN_BYTES_MAX + 1)],
    ids=["empty", "blank", "separator", "two lines", "not ASCII", "too long"],
)
def test_what_is_no_token(tmp_path: Path, content: bytes) -> None:
    """It is not sent: it could end the message that carries it. An error of Kafka's, which names the variable."""
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(KafkaError, match="KAFKA_SASL_TOKEN_FILE: holds no token"):
        asyncio.run(sasl.TokenFile(str(file)).token())


def test_a_token_is_read_each_time(tmp_path: Path) -> None:
    """Without the line's end, and as it is now."""
    file = tmp_path / "token"
    provider = sasl.TokenFile(str(file))
    with pytest.raises(KafkaError, match="KAFKA_SASL_TOKEN_FILE: No such file"):
        provider.read()
    for token in ("one", "two"):
        file.write_text(f"{token}\n")
        assert provider.read() == token


def test_aiokafka_is_patched_where_it_makes_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clients open connections by `create_conn`, which makes the class that we replace."""
    monkeypatch.setattr(aiokafka.conn, "AIOKafkaConnection", AIOKafkaConnection)
    sasl.install()
    assert aiokafka.conn.AIOKafkaConnection is sasl.SessionConnection
    assert aiokafka.client.create_conn is aiokafka.conn.create_conn
    assert "AIOKafkaConnection(" in inspect.getsource(aiokafka.conn.create_conn)
    assert "self.authenticator_oauth()" in inspect.getsource(AIOKafkaConnection._do_sasl_handshake)
    assert inspect.signature(sasl.SessionConnection.send).parameters.keys() == (
        inspect.signature(AIOKafkaConnection.send).parameters.keys()
    )
