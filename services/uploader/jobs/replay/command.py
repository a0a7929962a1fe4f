"""`spillway-uploader replay`: stores a range of KAFKA_TOPIC again, as a job with a name that can be resumed.

Owns the order of things: the range is closed, the job's state is committed, and only then anything is stored.
"""

import argparse
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from aiokafka import ConsumerRecord

from services.uploader.errors import StoreError
from services.uploader.jobs import connections
from services.uploader.jobs.bucket.checker import Checker
from services.uploader.jobs.connections import KafkaAwayError
from services.uploader.jobs.display import display_of
from services.uploader.jobs.options import Filter, OptionsError, keys_of
from services.uploader.jobs.replay.dry_run import ask, read_sample
from services.uploader.jobs.replay.job import begun, closed_by, purpose_of, resumed, warn_of
from services.uploader.jobs.replay.plan import Prices, make_plan
from services.uploader.jobs.replay.report import Report, print_plan, print_report
from services.uploader.jobs.replay.request import ReplayRequest, request_of
from services.uploader.jobs.settings import JobSettings
from services.uploader.jobs.span import Span, group_offsets
from services.uploader.jobs.storing.replay import Matches, Outcome, Replay, Work
from services.uploader.jobs.storing.sink import JobSink, open_sink
from services.uploader.jobs.storing.state import PartitionState, Purpose, UnreadableStateError, group_of
from services.uploader.jobs.topic_log import RangeError, log_client
from services.uploader.store.checksum import Checksum
from services.uploader.store.objects import open_objects
from services.uploader.store.options import StoreOptions
from services.uploader.topic_view import TopicView
from shared.settings import EXIT_CONFIGURATION, stop
from shared.signals import on_first_signal

log = logging.getLogger("spillway.uploader.replay")


async def run(settings: JobSettings, arguments: argparse.Namespace) -> int:
    """Do what the options say; the exit code."""
    now = datetime.now(UTC)
    try:
        request = request_of(
            arguments,
            round(now.timestamp() * 1000),
            f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}",
            settings.kafka_topic,
        )
        if request.dry_run:
            return await _dry_run(settings, request, arguments.output)
        states = await (resumed(settings, request) if request.resume else begun(settings, request))
        return await _work(settings, request, states, arguments.output)
    except OptionsError as error:
        stop(str(error), EXIT_CONFIGURATION)
    except (RangeError, KafkaAwayError, UnreadableStateError, StoreError) as error:
        stop(str(error))


# -- the work


def _matches(request: ReplayRequest, purpose: Purpose) -> Matches:
    of_filter, before_ms = Filter(purpose.folder, purpose.record_id).of_raw(purpose.default_folder), purpose.before_ms

    def means(raw: ConsumerRecord) -> bool:
        return (before_ms is None or raw.timestamp < before_ms) and of_filter(raw)

    if request.file is None:
        return means
    offsets = request.file.offsets

    def named(raw: ConsumerRecord) -> bool:
        return raw.offset in offsets.get(raw.partition, frozenset()) and means(raw)

    return named


def _spans(request: ReplayRequest, states: Mapping[int, PartitionState]) -> dict[int, Sequence[Span]]:
    if request.file is None:
        return {number: [Span(number, state.begin, state.end)] for number, state in states.items()}
    return {
        number: group_offsets({number: [at for at in request.file.offsets[number] if state.begin <= at < state.end]})[
            number
        ]
        for number, state in states.items()
    }


async def _work(settings: JobSettings, request: ReplayRequest, states: dict[int, PartitionState], output: str) -> int:
    purpose = next(iter(states.values())).purpose
    settings = settings.model_copy(update={"s3_bucket": purpose.bucket})
    keys = keys_of(settings, purpose.prefix)
    group = group_of(settings.kafka_group_id, request.job)
    log.info(
        "replay",
        extra={
            "job": request.job,
            "group": group,
            "topic": settings.kafka_topic,
            "ranges": {
                str(number): f"{state.settled}-{state.end - 1}" for number, state in states.items() if state.left
            },
            "bucket": purpose.bucket,
            "key_template": keys.template,
            "note": "an object is written over only where this template made its key",
            "only_missing": purpose.only_missing,
        },
    )
    began_s = time.monotonic()
    async with open_sink(settings, keys, only_missing=purpose.only_missing, rate_per_s=request.rate_per_s) as job:
        replay = Replay(
            settings,
            Work(
                settings.kafka_topic,
                _spans(request, states),
                states,
                _matches(request, purpose),
                None if request.file is None else {n: sorted(at) for n, at in request.file.offsets.items()},
            ),
            job.sink,
            job.tally,
            job.readiness,
            display_of(request.job),
            lambda: log_client(settings, group),
            lambda: TopicView(settings),
            give_up_after_s=request.give_up_after_s,
        )
        with on_first_signal(replay.stop):
            outcome = await replay.run()
    report = replace(
        _report(request, settings, purpose, job, outcome, time.monotonic() - began_s), ended_before=_have_ended(states)
    )
    print_report(report, output)
    return report.exit_code


def _have_ended(states: Mapping[int, PartitionState]) -> bool:
    """Whether an earlier run left nothing to do. An empty range was not done before, it is none."""
    return all(state.left == 0 for state in states.values()) and any(s.begin < s.end for s in states.values())


def _report(
    request: ReplayRequest, settings: JobSettings, purpose: Purpose, job: JobSink, outcome: Outcome, seconds: float
) -> Report:
    return Report(
        job=request.job,
        topic=settings.kafka_topic,
        bucket=purpose.bucket,
        states=outcome.states,
        tally=job.tally,
        tombstones=job.tombstones,
        seconds=seconds,
        stopped=outcome.stopped,
        failed=outcome.failed,
        uncommitted=outcome.uncommitted,
        resume=_resume_command(request) if not outcome.complete else None,
    )


def _resume_command(request: ReplayRequest) -> str:
    return f"spillway-uploader replay --resume {request.job}" + (
        " --from-file ... (the same file)" if request.file is not None else ""
    )


# -- the dry run


async def _dry_run(settings: JobSettings, request: ReplayRequest, output: str) -> int:
    purpose = purpose_of(settings, request)
    settings = settings.model_copy(update={"s3_bucket": purpose.bucket})
    keys = keys_of(settings, purpose.prefix)
    async with connections.kafka(settings) as (client, view):
        closed = await closed_by(view, settings, request)
        warn_of(closed, {span.partition for span in closed.spans})
        states = {
            span.partition: PartitionState(None, span.begin, span.end, span.begin, purpose) for span in closed.spans
        }
        in_flight = max(1, min(settings.max_workers * len(states), settings.max_uploads))
        async with open_objects(StoreOptions.of(settings, in_flight)) as objects:
            checker = Checker(objects, Checksum(settings.s3_checksum))
            await checker.look_at_bucket()
            spans = _spans(request, states)
            matches = _matches(request, replace(purpose, before_ms=closed.before_ms))
            sample = await read_sample(client, settings.kafka_topic, spans, keys, checker, matches)
            probe = await ask(sample, checker, in_flight)
    prices = Prices(
        settings.s3_put_price,
        settings.s3_get_price,
        settings.s3_list_price,
        settings.s3_price_currency,
        settings.s3_price_date,
    )
    offsets = sum(span.offsets for each in spans.values() for span in each)
    plan = make_plan(offsets, probe, prices, only_missing=purpose.only_missing, rate_per_s=request.rate_per_s)
    print_plan(closed, sample.times_ms, plan, probe, prices, keys.template, purpose.bucket, output)
    return 1 if closed.gone else 0
