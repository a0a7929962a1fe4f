"""What we rely on inside the Kafka client: a batch is tried once, and its error is the whole story."""

from typing import Never

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import RequestTimedOutError
from aiokafka.producer.sender import SendProduceReqHandler

from shared.kafka import once_only


async def test_the_client_tries_a_batch_once() -> None:
    """After a try that timed out the client must not send the batch again behind our back: the second answer would hide
    that the first may have been written.
    """
    producer = once_only(AIOKafkaProducer(bootstrap_servers="127.0.0.1:1", acks="all"))
    tries = []

    async def send(node_id: int, *_: object) -> Never:
        tries.append(node_id)
        raise RequestTimedOutError  # a retriable error, to the client

    producer.client.send = send
    place = TopicPartition("payloads", 0)
    builder = producer.create_batch()
    builder.append(timestamp=None, key=None, value=b"1", headers=[])
    accumulator = producer._message_accumulator
    accumulator._append_batch(builder, place)
    batch = accumulator._pop_batch(place)
    await SendProduceReqHandler(producer._sender, {place: batch}).do(7)
    assert tries == [7]
    assert isinstance(batch.future.exception(), RequestTimedOutError)
    assert place not in accumulator._batches
    await producer.stop()
