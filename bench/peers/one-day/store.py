"""The S3 side of the pipeline that a competent team writes in a day: poll, put up to 64 at once, commit the batch.

A peer of the benchmark. At least once: offsets are committed after a batch's objects are all stored, and the key is
made of topic, partition and offset, so that a repetition overwrites the same object. One refused put ends the process
(a supervisor would start it again); one slow put holds up its whole batch.
"""

import asyncio
import os

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord

PUTS_AT_ONCE = 64
RECORDS_A_BATCH_MAX = 1000


async def main() -> None:
    """Store records until the process is ended."""
    consumer = AIOKafkaConsumer(
        os.environ["KAFKA_TOPIC"],
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP"],
        group_id=os.environ.get("KAFKA_GROUP_ID", "one-day"),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    config = AioConfig(max_pool_connections=PUTS_AT_ONCE, s3={"addressing_style": "path"})
    client = get_session().create_client("s3", endpoint_url=os.environ["S3_ENDPOINT"], config=config)
    places = asyncio.Semaphore(PUTS_AT_ONCE)
    async with consumer, client as s3:

        async def store(record: ConsumerRecord[bytes, bytes]) -> None:
            async with places:
                await s3.put_object(
                    Bucket=os.environ["S3_BUCKET"],
                    Key=f"payloads/{record.topic}/{record.partition}/{record.offset}",
                    Body=record.value,
                    ContentType="application/octet-stream",
                )

        print("ready", flush=True)
        while True:
            polled = await consumer.getmany(timeout_ms=1000, max_records=RECORDS_A_BATCH_MAX)
            records = [record for partition in polled.values() for record in partition]
            if records:
                await asyncio.gather(*(store(record) for record in records))
                await consumer.commit()


if __name__ == "__main__":
    asyncio.run(main())
