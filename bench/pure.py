"""What the pure core costs a payload, in CPU time: the floor below which no shell of ours can go.

Each row is the best of 7 rounds (the least disturbed one). Compare rows of one run only: machines of one kind differ by
a factor of three. Run it with `python -m bench.pure`; the figures of a run belong into docs/benchmarks.
"""

import os
import time
from collections.abc import Callable

from services.ingest.collection import parse
from services.uploader.keys import DEFAULT_TEMPLATE, KeyTemplate
from services.uploader.window import Window
from shared.record import Stamp, decode, new_collection_id

ROUNDS = 7
REPEATS = 2_000
COUNT = 20


def best_us(work: Callable[[], object], per: int) -> float:
    """Microseconds of CPU for one payload of `work`, which handles `per` of them."""
    rounds = []
    for _ in range(ROUNDS):
        started_ns = time.process_time_ns()
        for _ in range(REPEATS):
            work()
        rounds.append(time.process_time_ns() - started_ns)
    return min(rounds) / REPEATS / per / 1000


def main() -> None:
    """Measure and print one row a step of a payload's way."""
    payload = b'{"host":"a","load":[0.1,0.2,0.3],"note":"' + b"x" * 760 + b'"}'
    body = b'{"version":"1","token":"t","data":[' + b",".join([payload] * COUNT) + b"]}"
    stamp = Stamp.of(
        collection_id=new_collection_id(1, os.urandom(10)),
        folder="payloads",
        version="1",
        received_ns=1,
        request_id="r",
        count=COUNT,
    )
    headers = stamp.headers(0)
    keys = KeyTemplate(DEFAULT_TEMPLATE, "payloads")

    def read() -> object:
        return decode(topic="t", partition=0, offset=0, timestamp_ms=0, value=payload, headers=headers)

    record = decode(topic="t", partition=0, offset=0, timestamp_ms=0, value=payload, headers=headers)

    def window() -> None:
        w = Window()
        for run in [w.admit(offset, 800, 0) for offset in range(COUNT)]:
            w.complete(run)

    rows = [
        (f"slice a collection of {COUNT} payloads of {len(payload)} bytes", best_us(lambda: parse(body, COUNT), COUNT)),
        ("encode a record's headers", best_us(lambda: [stamp.headers(i) for i in range(COUNT)], COUNT)),
        ("decode a record", best_us(read, 1)),
        ("render its key", best_us(lambda: keys.key(record), 1)),
        ("admit to the window and complete", best_us(window, COUNT)),
    ]
    print(f"{'µs of CPU a payload':>22}  step")
    for name, us in rows:
        print(f"{us:>22.2f}  {name}")


if __name__ == "__main__":
    main()
