"""What a PUT of 1 KB costs a store, 64 in flight, without Kafka and without the uploader around it.

`python -m bench.put --client wire`, with S3_ENDPOINT_URL and AWS's variables pointing at a server, `bench/sink` say.
CPU is this process's own; what stands around `put` here is one `await` and a counter.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from importlib import import_module
from itertools import count

import uvloop
from prometheus_client import CollectorRegistry

from services.uploader.store.options import StoreOptions
from shared.telemetry import UploaderMetrics

IN_FLIGHT = 64
BODY = b'{"host":"a","load":[0.1,0.2,0.3],"note":"' + b"x" * 981 + b'"}'
METADATA = {"spillway-id": "01a20db7-1caa-751c-aa7f-81f4b4128eab-0", "spillway-topic": "payloads"}
METADATA |= {"spillway-partition": "3", "spillway-offset": "123456"}
_WARM_UP_S = 0.4


async def measure(client: str, seconds: float) -> dict[str, float]:
    """Warm up, then put for a while."""
    options = StoreOptions(
        bucket=os.environ["S3_BUCKET"],
        endpoint_url=os.environ["S3_ENDPOINT_URL"],
        path_style=True,
        region="us-east-1",
        connections_max=IN_FLIGHT,
    )
    restarts = UploaderMetrics(CollectorRegistry()).store_restarts
    numbers, ended = count(), False
    async with import_module(f"services.uploader.store.{client}").open_store(options, restarts) as store:

        async def puts() -> None:
            while not ended:
                number = next(numbers)
                key = f"payloads/shard={number & 15:x}/dt=2026-11-26/hour=12/01a20db7-1caa-751c-aa7f-{number:012x}-0"
                await store.put(key, BODY, METADATA)

        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(puts())
            await asyncio.sleep(_WARM_UP_S)
            first, began_s, began_cpu_s = next(numbers), time.monotonic(), time.process_time()
            await asyncio.sleep(seconds)
            took_s, cpu_s, made = time.monotonic() - began_s, time.process_time() - began_cpu_s, next(numbers) - first
            ended = True
    return {"puts": made, "seconds": took_s, "cpu_us": 1e6 * cpu_s / made}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", default="aiobotocore")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = uvloop.run(measure(arguments.client, arguments.seconds))
    if arguments.json:
        print(json.dumps(found))
    else:
        print(f"{found['cpu_us']:.1f} µs of CPU a put, {found['puts'] / found['seconds']:.0f} puts/s")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
