"""`spillway-uploader`: builds settings and clients, wires them, owns the signals and the exit code."""

import asyncio
import gc
import logging
import os
import random
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import NoReturn, TypeVar

import uvloop
from aiokafka.errors import KafkaError

from services.uploader import cli
from services.uploader.consumer import GroupConsumer, consumer_client
from services.uploader.dead_letter import DeadShare
from services.uploader.dead_letter_topic import DeadLetters
from services.uploader.errors import ConfigurationError
from services.uploader.health import StoreHealth
from services.uploader.jobs.lag import command as lag
from services.uploader.jobs.letters import command as letters_command
from services.uploader.jobs.redrive import command as redrive_command
from services.uploader.jobs.replay import command as replay_command
from services.uploader.jobs.settings import JobSettings
from services.uploader.jobs.signals import EXIT_INTERRUPTED
from services.uploader.jobs.verify import command as verify_command
from services.uploader.keys import KeyTemplate
from services.uploader.limiter import Limiter
from services.uploader.partition import Sink
from services.uploader.retry import DeadLetter, Kind, decide, reason
from services.uploader.settings import GroupSettings, UploaderSettings
from services.uploader.status.observer import Observer
from services.uploader.status.process import Process
from services.uploader.status.routes import status_routes
from services.uploader.store import Store
from services.uploader.store.opening import open_store
from services.uploader.store.options import StoreOptions
from services.uploader.topic_view import TopicView
from services.uploader.topics import TopicPlan, ensure_topics
from services.uploader.upload_limit import UploadLimit
from shared.kafka import KafkaSettings, check_files
from shared.kafka_trouble import explain
from shared.log import configure_logging
from shared.ops import Readiness, listen, serve_ops
from shared.settings import EXIT_CONFIGURATION, load, stop
from shared.telemetry import UploaderMetrics, process_registry

log = logging.getLogger("spillway.uploader")

S = TypeVar("S", bound=KafkaSettings)

EXIT_WEDGED = 70  # EX_SOFTWARE of sysexits.h
PROBE_KEY = ".spillway/probe"


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; leaves the process with its exit code."""
    try:
        _run_command(argv)
    except KeyboardInterrupt:  # before the command has taken over the signals
        raise SystemExit(EXIT_INTERRUPTED) from None


def _run_command(argv: Sequence[str] | None) -> None:
    arguments = cli.parse(argv)
    match arguments.command:
        case "run":
            settings = load(UploaderSettings)
            configure_logging(settings.log_level)
            _checked(settings)
            uvloop.run(_run(settings))
        case "replay":
            _job(JobSettings, replay_command.run, arguments)
        case "verify":
            _job(JobSettings, verify_command.run, arguments)
        case "redrive":
            _job(JobSettings, redrive_command.run, arguments)
        case "dead-letters":
            _job(JobSettings, letters_command.run, arguments)
        case "lag":
            _job(GroupSettings, lag.run, arguments, "CRITICAL")  # it says itself what the client says
        case "topics":
            kafka = load(KafkaSettings)
            configure_logging("CRITICAL")  # one line of ours says what the client would say in five
            _checked(kafka)
            uvloop.run(_topics(kafka, cli.topic_plan(arguments, kafka.kafka_min_insync)))


def _job(
    kind: type[S],
    job: Callable[[S, Namespace], Coroutine[None, None, int]],
    arguments: Namespace,
    log_level: str | None = None,
) -> NoReturn:
    """Run a command of `jobs`, and leave with its exit code."""
    settings = load(kind)
    configure_logging(log_level or settings.log_level)
    _checked(settings)
    try:
        code = uvloop.run(job(settings, arguments))
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`: who reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter fails at its last flush
        code = 1
    raise SystemExit(code)


def _checked(settings: KafkaSettings) -> None:
    try:
        check_files(settings)
    except ValueError as error:
        stop(str(error), EXIT_CONFIGURATION)


async def _topics(settings: KafkaSettings, plan: TopicPlan) -> None:
    try:
        topic, differing = await ensure_topics(settings, plan)
    except (KafkaError, TimeoutError) as error:
        stop(f"KAFKA_BOOTSTRAP_SERVERS={settings.kafka_bootstrap_servers}: {explain(error)}")
    if differing:
        stop("; ".join(differing))
    print(  # noqa: T201 - the command's answer
        f"topics {topic.name} and {settings.kafka_dead_topic} are as they should be: {topic.partitions} partitions, "
        f"retention {topic.retention_ms / 3_600_000:g} h, batches up to {topic.message_bytes_max} bytes"
    )


async def _run(settings: UploaderSettings) -> None:
    readiness = Readiness("kafka", "topic", "assignment", "s3")
    registry = process_registry(readiness)
    metrics = UploaderMetrics(registry)
    metrics.in_flight_max.set(settings.max_uploads)
    metrics.buffered_bytes_max.set(settings.max_buffer_bytes)
    health = StoreHealth(readiness, metrics)
    keys = KeyTemplate(settings.s3_key_template, settings.s3_folder)
    try:
        ops = listen(settings.uploader_ops_host, settings.uploader_ops_port, "UPLOADER_OPS_PORT")
    except OSError as error:
        stop(str(error))
    limit = UploadLimit(Limiter(settings.max_uploads), metrics)
    observer = Observer(settings)
    page = status_routes(observer, Process(readiness, health, limit, metrics))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serve_ops(ops, readiness, registry, page))
        await stack.enter_async_context(observer.running())
        try:
            store = await stack.enter_async_context(
                open_store(settings, StoreOptions.of(settings, settings.max_uploads + 1), metrics.store_restarts)
            )
        except ConfigurationError as error:
            stop(str(error), EXIT_CONFIGURATION)
        dead_letters = await stack.enter_async_context(
            DeadLetters(settings, readiness, metrics, DeadShare(settings.dead_letter_share_max))
        )
        consumer = GroupConsumer(
            settings,
            Sink(store, keys, health, limit, dead_letters, metrics, settings.max_workers),
            readiness,
            metrics,
            lambda: consumer_client(settings),
            lambda: TopicView(settings),
            _give_up,
        )
        stopping = _own_signals(consumer)
        log.info(
            "starting",
            extra={"topic": settings.kafka_topic, "bucket": settings.s3_bucket, "key_template": keys.template},
        )
        if await _probe(store, health, metrics, stopping):
            # What is here now stays until the end. Records come and go by the thousand, and each full collection that
            # they set off would look through all of it again: a tenth of the CPU a record.
            gc.collect()
            gc.freeze()
            await consumer.run()
    log.info("stopped")


def _give_up(message: str) -> None:
    """What hangs cannot be ended from inside: leave, so that the supervisor starts anew. Nothing is lost by it."""
    log.critical("wedged; leaving so that a supervisor starts this process anew", extra={"cause": message})
    logging.shutdown()
    os._exit(EXIT_WEDGED)


def _own_signals(consumer: GroupConsumer) -> asyncio.Event:
    """The first SIGTERM or SIGINT drains; a second leaves at once. Returns the event that the first one sets."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def on_signal(number: int) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        log.info("draining", extra={"signal": signal.Signals(number).name})
        stopping.set()
        consumer.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stopping


async def _probe(store: Store, health: StoreHealth, metrics: UploaderMetrics, stopping: asyncio.Event) -> bool:
    """Put one small object before joining the group: a process that cannot write must not hold partitions.

    Tries without end; False when told to stop meanwhile.
    """
    attempt = 0
    while not stopping.is_set():
        attempt += 1
        try:
            await store.put(PROBE_KEY, b"", {})
        except Exception as error:  # noqa: BLE001 - any failure is tried again
            decision = decide(error, attempt, random.random())  # noqa: S311 - jitter, not a secret
            # A probe is no record: one that S3 calls poison (metadata, tags) is the settings' fault.
            retry = decision.held if isinstance(decision, DeadLetter) else decision
            metrics.retries.labels(kind=retry.kind, reason=reason(error)).inc()
            health.failed(reason(error), str(error), time.time(), mend=retry.kind is not Kind.TRANSIENT)
            try:
                async with asyncio.timeout(retry.delay_s):
                    await stopping.wait()
            except TimeoutError:
                continue
        else:
            health.succeeded(alone=True)
            return True
    return False


if __name__ == "__main__":
    main()
