"""`spillway-uploader lag` as a test runs it, and a topic and a group that are as far apart as the test wants them."""

import argparse
import asyncio
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import RecordsToDelete

from services.uploader.jobs.lag import command as lag
from services.uploader.settings import GroupSettings
from tests.harness.broker import Topic, admin, producer


def settings_of(topic: Topic, **more: Any) -> GroupSettings:
    return GroupSettings(
        **{
            "kafka_bootstrap_servers": topic.bootstrap_servers,
            "kafka_topic": topic.name,
            "kafka_group_id": topic.group,
            **more,
        }
    )


def parsed(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    lag.add_parser(parser.add_subparsers(dest="command"))
    return parser.parse_args(["lag", *options])


def ran(settings: GroupSettings, *options: str) -> int:
    return asyncio.run(lag.run(settings, parsed(*options)))


async def produce(topic: Topic, counts: Mapping[int, int], times_ms: Mapping[int, int] | None = None) -> None:
    """So many records of each partition; `times_ms` by position, for a topic that keeps the producer's times."""
    async with producer(topic.bootstrap_servers) as client:
        for partition, count in counts.items():
            for number in range(count):
                written_ms = None if times_ms is None else times_ms[number]
                await client.send_and_wait(topic.name, b"payload", partition=partition, timestamp_ms=written_ms)


async def commit(topic: Topic, offsets: Mapping[int, int], note: str = "") -> None:
    client = AIOKafkaConsumer(bootstrap_servers=topic.bootstrap_servers, group_id=topic.group, enable_auto_commit=False)
    await client.start()
    try:
        tps = {TopicPartition(topic.name, partition): offset for partition, offset in offsets.items()}
        client.assign(list(tps))
        await client.commit({tp: (offset, note) for tp, offset in tps.items()})
    finally:
        await client.stop()


async def delete_before(topic: Topic, partition: int, offset: int) -> None:
    async with admin(topic.bootstrap_servers) as client:
        await client.delete_records({TopicPartition(topic.name, partition): RecordsToDelete(before_offset=offset)})
