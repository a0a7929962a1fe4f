"""What `spillway-uploader lag` counts on a real broker, whom it names, and what it warns of."""

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import NewTopic

from services.uploader.jobs.lag import command as lag
from services.uploader.jobs.lag.questions import asker_of
from services.uploader.jobs.lag.view import view_of
from services.uploader.topic_view import TopicView, commit_note
from tests.harness.broker import Topic, admin, producer
from tests.harness.group_lag import commit, delete_before, produce, ran, settings_of

DEADLINE_S = 60
WEEK_S = 7 * 86_400


def shown(topic: Topic, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    """What `--output json` prints, which is one document and nothing else."""
    assert ran(settings_of(topic), "--output", "json", *(options or ("--sample", "0"))) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def column(document: Mapping[str, Any], name: str) -> list[Any]:
    return [partition[name] for partition in document["partitions"]]


async def topic_id(topic: Topic) -> str:
    view = TopicView(settings_of(topic))
    await view.start()
    try:
        found = await view.topic_id()
    finally:
        await view.close()
    assert found is not None
    return found


def test_lag_is_counted_exactly(make_topic: Callable[..., Topic], capsys: pytest.CaptureFixture[str]) -> None:
    """From the commit to the end; a partition without a commit from its beginning; an empty one has none."""
    topic = make_topic(partitions=4)
    began_s = time.time()
    asyncio.run(produce(topic, {0: 10, 1: 5, 3: 2}))
    asyncio.run(commit(topic, {0: 4, 3: 2}))
    found = shown(topic, capsys)
    assert column(found, "lag_records") == [6, 5, 0, 0]
    assert column(found, "committed") == [4, None, None, 2]
    assert column(found, "end") == [10, 5, 0, 2]
    assert column(found, "drain") == ["unknown", "unknown", "done", "done"], "one look has no rates"
    assert found["total"]["lag_records"] == 11
    waited_s = time.time() - began_s
    ages = column(found, "lag_seconds")
    assert ages[2:] == [0, 0]
    assert all(0 < age <= waited_s for age in ages[:2])
    left = column(found, "retention_left_seconds")
    assert left[2:] == [WEEK_S, WEEK_S]
    assert all(WEEK_S - waited_s <= each < WEEK_S for each in left[:2])
    assert (found["state"], found["members"]) == ("Empty", [])
    assert found["warnings"] == ["no uploader is in the group, and 11 records wait"]


def test_the_age_is_that_of_the_first_record_not_committed(
    make_topic: Callable[..., Topic], capsys: pytest.CaptureFixture[str]
) -> None:
    """Not of the newest, nor of one that is stored: records a minute apart tell which one was read."""
    topic = make_topic(partitions=1)
    times_ms = {number: round(time.time() * 1000) - (10 - number) * 60_000 for number in range(10)}

    async def made() -> None:
        async with admin(topic.bootstrap_servers) as client:
            await client.create_topics(
                [NewTopic(f"{topic.name}.timed", 2, 1, topic_configs={"message.timestamp.type": "CreateTime"})]
            )
        await produce(timed, {0: 10, 1: 10}, times_ms)
        await commit(timed, {0: 4, 1: 7})

    timed = Topic(topic.bootstrap_servers, f"{topic.name}.timed", 2)
    asyncio.run(made())
    ages = column(shown(timed, capsys), "lag_seconds")
    since_s = time.time()
    assert [pytest.approx(since_s - times_ms[number] / 1000, abs=20) for number in (4, 7)] == ages  # 6 and 3 minutes


async def test_the_age_follows_the_commits(make_topic: Callable[..., Topic]) -> None:
    """Look after look over one connection: what was read before is not taken for what is the oldest now."""
    topic = await asyncio.to_thread(make_topic, partitions=2)
    await produce(topic, {0: 3, 1: 3})
    seen = []
    async with asker_of(settings_of(topic)) as asker:
        for offsets in ({0: 0}, {0: 0}, {0: 1, 1: 2}, {0: 3}):
            await commit(topic, offsets)
            look = await asker.look()
            seen.append([each.oldest.offset if each.oldest else None for each in look.partitions])
            assert not look.unread
            assert not asker._client.assignment(), "nothing is fetched between two looks"
    assert seen == [[0, 0], [0, 0], [1, 2], [None, 2]]


def test_markers_and_aborted_records_are_no_lag_for_ever(
    make_topic: Callable[..., Topic], capsys: pytest.CaptureFixture[str]
) -> None:
    """Holes before the first record to store are no lag; an open transaction's records are not there yet."""
    topic = make_topic(partitions=1)

    async def written() -> None:
        async with producer(topic.bootstrap_servers, transactional_id=topic.name) as client:
            async with client.transaction():
                for _ in range(3):
                    await client.send_and_wait(topic.name, b"stored", partition=0)  # 0, 1, 2; the marker is 3
            await client.begin_transaction()
            await client.send_and_wait(topic.name, b"aborted", partition=0)  # 4; the marker is 5
            await client.abort_transaction()

    asyncio.run(written())
    asyncio.run(commit(topic, {0: 3}))
    found = shown(topic, capsys)
    assert (column(found, "end"), column(found, "lag_records"), column(found, "lag_seconds")) == ([6], [0], [0])
    assert found["total"]["drain"] == "done"
    asyncio.run(commit(topic, {0: 1}))
    assert column(shown(topic, capsys), "lag_records") == [5], "offsets 1 to 5: holes after the first record count"
    asyncio.run(commit(topic, {0: 3}))
    asyncio.run(produce(topic, {0: 1}))
    assert column(shown(topic, capsys), "lag_records") == [1], "offset 6 alone: the holes before it are no lag"


async def test_an_open_transaction_is_not_there_yet(make_topic: Callable[..., Topic]) -> None:
    """The end is that of what producers have committed: what may still be aborted is nobody's lag."""
    topic = await asyncio.to_thread(make_topic, partitions=1)
    async with producer(topic.bootstrap_servers, transactional_id=topic.name) as client:
        await produce(topic, {0: 2})
        await client.begin_transaction()
        await client.send_and_wait(topic.name, b"open", partition=0)
        async with asker_of(settings_of(topic)) as asker:
            open_view = view_of(await asker.look(), None)
            await client.commit_transaction()
            closed_view = view_of(await asker.look(), None)
    assert (open_view.look.partitions[0].end, open_view.total.lag_records) == (2, 2)
    assert (closed_view.look.partitions[0].end, closed_view.total.lag_records) == (4, 4)


def test_what_retention_took_uncommitted_is_named(
    make_topic: Callable[..., Topic], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exact offsets, where there was a commit; without one, nothing tells that anybody wanted them."""
    topic = make_topic(partitions=3)
    asyncio.run(produce(topic, {0: 10, 1: 10, 2: 10}))
    asyncio.run(commit(topic, {0: 3, 2: 6}))
    for partition in range(3):
        asyncio.run(delete_before(topic, partition, 6))
    found = shown(topic, capsys)
    assert column(found, "begin") == [6, 6, 6]
    assert column(found, "lag_records") == [4, 4, 4]
    assert found["warnings"][1:] == [
        "partition 0: retention took offsets 3 to 5 before they were committed (3 offsets)"
    ]


def test_a_commit_of_a_topic_that_is_gone_is_void(
    make_topic: Callable[..., Topic], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its offset means another record; one that notes this topic's id counts, and so does one beyond the end not."""
    topic = make_topic(partitions=3)
    asyncio.run(produce(topic, {0: 5, 1: 5, 2: 5}))
    gone = "11111111-1111-1111-1111-111111111111"
    asyncio.run(commit(topic, {0: 2}, commit_note(gone)))
    asyncio.run(commit(topic, {1: 2}, commit_note(asyncio.run(topic_id(topic)))))
    asyncio.run(commit(topic, {2: 50}))
    found = shown(topic, capsys)
    assert column(found, "lag_records") == [5, 3, 5]
    assert column(found, "committed_for") == [gone, found["topic_id"], found["topic_id"]]
    of_gone, of_cut = found["warnings"][1:]
    assert of_gone == (
        f"partition 0: offset 2 was committed for a topic that is gone (topic id {gone}); everything since 0 is behind"
    )
    assert of_cut.startswith("partition 2: offset 50 is committed, and the log ends at 5: it was cut")


async def test_who_is_in_the_group(make_topic: Callable[..., Topic], capsys: pytest.CaptureFixture[str]) -> None:
    """Each member with its host and what of the topic it has; other topics' partitions are not this one's."""
    topic = await asyncio.to_thread(make_topic, partitions=2)
    member = AIOKafkaConsumer(
        topic.name,
        topic.dead,
        bootstrap_servers=topic.bootstrap_servers,
        group_id=topic.group,
        client_id="reader-1",
        enable_auto_commit=False,
    )
    await member.start()
    try:
        async with asyncio.timeout(DEADLINE_S), asker_of(settings_of(topic)) as asker:
            while (look := await asker.look()).group.state != "Stable":
                pass
        arguments = argparse.Namespace(output="text", sample=0, watch=False)
        assert await lag.run(settings_of(topic), arguments) == 0
    finally:
        await member.stop()
    (found,) = look.group.members
    assert (found.client_id, found.partitions) == ("reader-1", (0, 1))
    assert found.host
    assert not view_of(look, None).warnings
    text = capsys.readouterr().out
    assert f"member reader-1 at {found.host}: partitions 0-1" in text
    assert f"group {topic.group}: Stable, 1 member\n" in text


async def test_rates_are_what_happened_between_two_looks(make_topic: Callable[..., Topic]) -> None:
    """Records, through the seconds between the looks; a first commit counts from the log's beginning."""
    topic = await asyncio.to_thread(make_topic, partitions=2)
    await produce(topic, {0: 40, 1: 3})
    await commit(topic, {0: 10})
    async with asker_of(settings_of(topic)) as asker:
        before = await asker.look(ages=False)
        await produce(topic, {0: 2})
        await commit(topic, {0: 30, 1: 2})
        look = await asker.look()
    elapsed_s = look.clock_s - before.clock_s
    view = view_of(look, before)
    assert [round((each.committed_per_s or 0) * elapsed_s, 6) for each in view.standings] == [20, 2]
    assert [round((each.arriving_per_s or 0) * elapsed_s, 6) for each in view.standings] == [2, 0]
    assert [each.lag_records for each in view.standings] == [12, 1]
