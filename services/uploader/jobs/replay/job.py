"""What a job of `replay` is: made new or found by its name, and kept in the commits of its own group.

Owns the rule of when a name may be used again. Reads and stores no record.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace

from aiokafka import AIOKafkaConsumer, TopicPartition

from services.uploader.jobs import connections
from services.uploader.jobs.options import OptionsError
from services.uploader.jobs.replay.request import ReplayRequest
from services.uploader.jobs.settings import JobSettings
from services.uploader.jobs.span import Range
from services.uploader.jobs.storing.group import read_states, write_states
from services.uploader.jobs.storing.state import PartitionState, Purpose, group_of, lost, spell
from services.uploader.jobs.topic_log import RangeError, closed_range
from services.uploader.topic_view import TopicView

log = logging.getLogger("spillway.uploader.replay")


def purpose_of(
    settings: JobSettings, request: ReplayRequest, partitions: Collection[int] = (), before_ms: int | None = None
) -> Purpose:
    """What the options and the settings say of each record."""
    return Purpose(
        bucket=request.to_bucket or settings.s3_bucket,
        key_template=settings.s3_key_template,
        prefix=request.to_prefix,
        default_folder=settings.s3_folder,
        only_missing=request.only_missing,
        folder=request.filter.folder,
        record_id=request.filter.record_id,
        file_sum=None if request.file is None else request.file.sum,
        range=request.typed,
        endpoint=settings.s3_endpoint_url,
        before_ms=before_ms,
        partitions=spell(partitions),
    )


async def closed_by(view: TopicView, settings: JobSettings, request: ReplayRequest) -> Range:
    """The asked range, as the log is now.

    Raises:
        RangeError: there is none.

    """
    bounds = request.bounds
    if bounds is None:
        raise RangeError("there is no range")
    return await closed_range(settings, view, settings.kafka_topic, bounds.lower, bounds.upper, bounds.partitions)


def warn_of(closed: Range, partitions: Collection[int]) -> None:
    """Log what is gone of the range, as far as it is of these partitions."""
    for one in closed.gone:
        if one.partition in partitions:
            log.warning("the range is cut", extra={"gone": str(one)})


async def begun(settings: JobSettings, request: ReplayRequest) -> dict[int, PartitionState]:
    """Close the range, and commit it as the state of a new job; partitions that the job has begun before go on.

    So a supervisor that repeats one command line, a Kubernetes Job say, needs no --resume: where the words of the range
    mean something else by now (`2h`), what they meant at the first start is what counts.

    Raises:
        OptionsError: the name belongs to a job for something else, or to one with such a range that has ended.

    """
    group = group_of(settings.kafka_group_id, request.job)
    async with connections.kafka(settings, group) as (client, view):
        closed = await closed_by(view, settings, request)
        asked = {span.partition for span in closed.spans}
        known = await read_states(view, group, settings.kafka_topic)
        before = {number: state for number, state in known.items() if number in asked}
        _check_file(request, await view.topic_id())
        topic_id, purpose = await view.topic_id(), purpose_of(settings, request, asked, closed.before_ms)
        _check_same(settings, request, known, topic_id, purpose)
        _check_ended(request, before)
        if known and request.moves and asked - known.keys():
            log.warning(
                "other partitions of this job were begun before, and its range means a later one by now",
                extra={"job": request.job, "range": request.typed},
            )
        warn_of(closed, asked - before.keys())
        new = {
            span.partition: PartitionState(
                topic_id=topic_id,
                begin=span.begin,
                end=span.end,
                settled=span.begin,
                purpose=purpose,
                gone=tuple(one for one in closed.gone if one.partition == span.partition),
            )
            for span in closed.spans
            if span.partition not in before
        }
        if new:
            await _note(client, settings.kafka_topic, new)
    return before | new


def _check_file(request: ReplayRequest, topic_id: str | None) -> None:
    of = None if request.file is None else request.file.topic_id
    if of is not None and topic_id is not None and of != topic_id:
        raise OptionsError("--from-file was written of another topic of this name: its offsets are other records now")


async def _note(client: AIOKafkaConsumer, topic: str, states: Mapping[int, PartitionState]) -> None:
    tps = [TopicPartition(topic, number) for number in states]
    client.assign(tps)
    for tp in tps:
        client.seek(tp, states[tp.partition].begin)
    try:
        await write_states(client, topic, states)
    except ValueError as error:
        raise OptionsError(str(error)) from None


def _check_same(
    settings: JobSettings,
    request: ReplayRequest,
    known: Mapping[int, PartitionState],
    topic_id: str | None,
    purpose: Purpose,
) -> None:
    """That a job of this name, if there is one, is for the same and has not ended. See `begun`."""
    for number, state in known.items():
        if state.topic_id != topic_id:
            raise OptionsError(f"topic {settings.kafka_topic} was made anew since job {request.job} began")
        different = state.purpose.difference(
            replace(purpose, partitions=state.purpose.partitions, before_ms=state.purpose.before_ms)
        )
        if different is not None:
            raise OptionsError(
                f"there is a job {request.job} for something else already (partition {number}: {different}); give this "
                "one another name"
            )


def _check_ended(request: ReplayRequest, before: Mapping[int, PartitionState]) -> None:
    if before and request.moves and not any(state.left for state in before.values()):
        raise OptionsError(
            f"job {request.job} has ended, and `{request.typed}` means another range by now: give this one another name"
        )
    _check_whole(request, before)
    if before:
        log.info("the job was begun before, and goes on with the range of then", extra={"job": request.job})


def _check_whole(request: ReplayRequest, states: Mapping[int, PartitionState]) -> None:
    missed = [number for number in lost(states) if request.partitions is None or number in request.partitions]
    if missed:
        raise OptionsError(
            f"job {request.job} has no state of partition {spell(missed)} any more: Kafka forgets a commit after "
            "offsets.retention.minutes. Begin a job with another name for it"
        )


async def resumed(settings: JobSettings, request: ReplayRequest) -> dict[int, PartitionState]:
    """The state of a job that was begun before.

    Raises:
        OptionsError: there is none, or it was begun for something else.

    """
    group = group_of(settings.kafka_group_id, request.job)
    async with connections.kafka(settings, group) as (_, view):
        states = await read_states(view, group, settings.kafka_topic)
        topic_id = await view.topic_id()
    if request.partitions is not None:
        states = {number: state for number, state in states.items() if number in request.partitions}
    if not states:
        raise OptionsError(f"there is no job {request.job} to resume (consumer group {group} has no such commits)")
    _check_whole(request, states)
    if len({replace(state.purpose, partitions="") for state in states.values()}) > 1:
        raise OptionsError(f"the partitions of job {request.job} were begun for different things: use --partitions")
    for number, state in states.items():
        if state.topic_id != topic_id:
            raise OptionsError(f"topic {settings.kafka_topic} was made anew since job {request.job} began")
        now = replace(
            state.purpose,
            key_template=settings.s3_key_template,
            default_folder=settings.s3_folder,
            endpoint=settings.s3_endpoint_url,
            file_sum=None if request.file is None else request.file.sum,
        )
        different = state.purpose.difference(now)
        if different is not None:
            raise OptionsError(f"job {request.job}, partition {number}, cannot go on with other settings: {different}")
    return states
