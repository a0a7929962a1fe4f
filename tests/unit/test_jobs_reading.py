"""Reading spans and comparing them, on a scripted broker and a bucket in memory: what is handed out, once, and counted.

The bucket's listings come in small pages, in the order of keys, as S3's do.
"""

import asyncio
import hashlib
import random
from collections.abc import Mapping

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from hypothesis import given
from hypothesis import strategies as st

from services.uploader.errors import ConfigurationError, TransientError
from services.uploader.jobs.bucket.checker import Checker
from services.uploader.jobs.bucket.comparison import Finding
from services.uploader.jobs.span import Gone, Span
from services.uploader.jobs.span_reader import SpanReader
from services.uploader.jobs.topic_log import RangeError
from services.uploader.jobs.verify.verifier import Fault, Verifier
from services.uploader.keys import KeyTemplate
from services.uploader.partition import read_record
from services.uploader.store.checksum import Answered, Checksum
from services.uploader.store.found import Digest, Head, Listed
from tests.fakes.kafka_broker import Broker
from tests.fakes.kafka_consumer import ScriptedConsumer

TP = TopicPartition("t", 0)
PAGE = 7


class Bucket:
    """Implements `store.found.Objects` over a dictionary; `errors` are raised first, one a question."""

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        self.objects = dict(objects)
        self.errors: list[Exception] = []

    def _meet(self) -> None:
        if self.errors:
            raise self.errors.pop(0)

    async def head(self, key: str) -> Head | None:
        self._meet()
        body = self.objects.get(key)
        return None if body is None else Head(len(body), Answered(_etag(body)), {})

    async def digest(self, key: str) -> Digest | None:
        self._meet()
        body = self.objects.get(key)
        return None if body is None else Digest(len(body), Checksum.MD5.of(body))

    async def page(self, prefix: str, after: str) -> tuple[list[Listed], bool]:
        self._meet()
        behind = [key for key in sorted(self.objects) if key.startswith(prefix) and key > after]
        return [Listed(key, len(self.objects[key]), _etag(self.objects[key])) for key in behind[:PAGE]], len(
            behind
        ) > PAGE


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


async def read_all(client: ScriptedConsumer, spans: Mapping[int, list[Span]]) -> tuple[list[int], list[Gone]]:
    """Every offset of partition 0 that is handed out, and what was gone."""
    reader, offsets, gone = SpanReader(client, "t", spans), [], []
    reader.start()
    while reader.unfinished():
        for records in (await reader.poll(reader.unfinished(), records_max=3, timeout_ms=0)).values():
            offsets += [record.offset for record in records]
        gone += reader.take_gone()
    return offsets, gone


@given(
    holes=st.sets(st.integers(0, 29)),
    cuts=st.lists(st.integers(0, 30), max_size=6, unique=True).filter(lambda cuts: len(cuts) % 2 == 0),
)
def test_exactly_the_spans_are_handed_out(holes: set[int], cuts: list[int]) -> None:
    """Whatever holes the log has, at the ends of spans, too: each record of each span once, in order; and it ends."""
    broker = Broker(partitions=1)
    for offset in range(30):
        if offset in holes:
            broker.logs[TP].skip()
        else:
            broker.append()
    edges = sorted(cuts)
    spans = [Span(0, begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=True)]
    offsets, gone = asyncio.run(read_all(ScriptedConsumer(broker), {0: spans}))
    wanted = [at for span in spans for at in range(span.begin, span.end) if at not in holes]
    assert (offsets, gone) == (wanted, [])


async def test_retention_is_named_to_the_offset() -> None:
    """What is deleted while it is read: the gap of each span, and the rest goes on."""
    broker = Broker(partitions=1)
    broker.append(30)
    broker.logs[TP].delete_before(12)
    offsets, gone = await read_all(ScriptedConsumer(broker), {0: [Span(0, 2, 6), Span(0, 9, 20)]})
    assert offsets == list(range(12, 20))
    assert gone == [Gone(0, 2, 6), Gone(0, 9, 12)]


async def test_a_log_that_ends_before_the_range_is_another_one() -> None:
    """Nobody waits for ever for offsets that are not there: the topic was made anew, or its leader lost records."""
    broker = Broker(partitions=1)
    broker.append(5)
    with pytest.raises(RangeError, match="ends at 5, before 8"):
        await read_all(ScriptedConsumer(broker), {0: [Span(0, 8, 20)]})


def verifier(bucket: Bucket, *, lists: bool = True) -> tuple[Verifier, list[Fault]]:
    faults: list[Fault] = []
    made = Verifier(
        Checker(bucket, Checksum.MD5),
        KeyTemplate("{folder}/{id}", "f"),
        read_record,
        lambda _: True,
        faults.append,
        lists=lists,
    )
    return made, faults


def stored(broker: Broker) -> dict[str, bytes]:
    """What a right uploader would have made of the log."""
    keys = KeyTemplate("{folder}/{id}", "f")
    return {keys.key(read_record(raw)): raw.value or b"" for raw in broker.logs[TP].records.values()}


@pytest.mark.parametrize("lists", [True, False])
async def test_what_was_read_before_a_failure_is_counted_once(*, lists: bool) -> None:
    """A client that fails in the middle of a chunk: what was not compared is read again by the next one."""
    broker = Broker(partitions=1)
    broker.append(40)
    broker.fetch_max = 15
    bucket = Bucket(stored(broker))
    compare, faults = verifier(bucket, lists=lists)
    positions = {0: 0}
    broker.next("getmany", None, None, KafkaError("away"))
    with pytest.raises(KafkaError):
        await compare.compare(ScriptedConsumer(broker), "t", {0: Span(0, 0, 40)}, positions.update)
    compare.forget()
    assert positions == {0: 0}
    await compare.compare(ScriptedConsumer(broker), "t", {0: Span(0, 0, 40)}, positions.update)
    assert (compare.counts.records, compare.counts.same, faults, positions) == (40, 40, [], {0: 40})


@pytest.mark.parametrize("lists", [True, False])
async def test_random_damage_is_told_exactly(*, lists: bool) -> None:
    """Objects vanish, change, and strangers lie between them: each is told once, by listings as by HEADs."""
    chance = random.Random(7)  # noqa: S311 - the same each time
    broker = Broker(partitions=1)
    broker.append(200)
    for _ in range(20):
        bucket = Bucket(stored(broker))
        keys = sorted(bucket.objects)
        gone, changed = set(chance.sample(keys, 9)), set(chance.sample(keys, 9))
        for key in changed:
            bucket.objects[key] = bucket.objects[key][:-1] + b"!"
        for key in gone:
            del bucket.objects[key]
        for key in chance.sample(keys, 60):
            bucket.objects[key + chance.choice("-0z")] = b"somebody else's"
        compare, faults = verifier(bucket, lists=lists)
        await compare.compare(ScriptedConsumer(broker), "t", {0: Span(0, 0, 200)}, lambda _: None)
        found = {(fault.expected.key, fault.finding) for fault in faults}
        assert len(found) == len(faults)
        assert found == {(key, Finding.MISSING) for key in gone} | {(key, Finding.DIFFERENT) for key in changed - gone}
        assert compare.counts.same == 200 - len(gone | changed)


async def test_errors_that_pass_change_nothing_and_one_that_stays_is_unknown() -> None:
    """A question is asked a few times; then it is "could not tell", and never "missing"."""
    broker = Broker(partitions=1)
    broker.append(3)
    bucket = Bucket(stored(broker))
    bucket.errors = [TransientError("slow_down", "later")] * 3
    compare, faults = verifier(bucket)
    await compare.compare(ScriptedConsumer(broker), "t", {0: Span(0, 0, 3)}, lambda _: None)
    assert (compare.counts.same, faults) == (3, [])
    bucket.errors = [TransientError("slow_down", "never")] * 1000
    compare, faults = verifier(bucket)
    await compare.compare(ScriptedConsumer(broker), "t", {0: Span(0, 0, 3)}, lambda _: None)
    assert (compare.counts.unknown, {fault.finding for fault in faults}) == (3, {None})


@pytest.mark.parametrize("lists", [True, False])
async def test_a_bucket_that_cannot_be_asked_ends_it(*, lists: bool) -> None:
    """Wrong credentials are no word on any object."""
    broker = Broker(partitions=1)
    broker.append(30)
    bucket = Bucket(stored(broker))
    bucket.errors = [ConfigurationError("access_denied", "no")] * 100
    compare, faults = verifier(bucket, lists=lists)
    with pytest.raises(ConfigurationError):
        await compare.compare(ScriptedConsumer(broker), "t", {0: Span(0, 0, 30)}, lambda _: None)
    assert compare.counts.records == 0
    assert {fault.finding for fault in faults} <= {None}  # of the first few it is said that they could not be told
