"""`spillway-ingest`: reads the settings, builds every client, wires them and runs until a signal.

The only place of this tier that builds settings or clients.
"""

import argparse
import asyncio
import contextlib
import ctypes
import gc
import logging
import resource
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path

import uvloop
from aiokafka import AIOKafkaProducer
from aiokafka.conn import create_conn

from services.ingest import token_command
from services.ingest.access import Access
from services.ingest.admission import Admission
from services.ingest.app import IngestApp
from services.ingest.body import Bodies
from services.ingest.brokers import Connect
from services.ingest.connections import Connections
from services.ingest.endpoint import CollectionsEndpoint
from services.ingest.intake import Intake
from services.ingest.producer import KAFKA, TOPIC, KafkaLink
from services.ingest.quick import QuickRoute
from services.ingest.quota import Quotas
from services.ingest.refusals import Refusals
from services.ingest.request import COLLECTIONS_PATH
from services.ingest.server import IngestServer
from services.ingest.settings import IngestSettings
from services.ingest.tokens import InvalidTokensError
from services.ingest.tokens_file import TokensFile
from services.ingest.workers.ledger import Ledger, SharedQuotas, create
from services.ingest.workers.place import Alone, AsWorker, Place, bind_to
from services.ingest.workers.supervisor import Supervisor
from services.ingest.writers import Writers
from shared.kafka import check_files, connection_options
from shared.log import configure_logging
from shared.ops import Readiness, bind, claim, listen
from shared.settings import load, stop
from shared.telemetry import IngestMetrics, process_registry

logger = logging.getLogger("spillway.ingest")

_BATCH_BYTES_UNBOUNDED = 2**30  # batches are measured by `batching`, not by the client
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_MMAP_THRESHOLD_BYTES = 1536 * 1024  # above the copies of a full batch that its request is put together of
_TRIM_THRESHOLD_BYTES = 4 * 1024 * 1024  # free at the heap's end: a batch on its way takes so much, and the next again
_OTHER_FILES = 384  # of a process: brokers, modules, the ops port, and refused connections that still read their 503


def main(arguments: Sequence[str] | None = None) -> None:
    """Console script: serves, or runs a subcommand. Returns after a clean drain; every other end is a SystemExit."""
    parsed = _parser().parse_args(arguments)
    if parsed.command == "token":
        sys.exit(token_command.run(parsed))
    settings = load(IngestSettings)
    if parsed.command == "worker":
        _work(settings, parsed)
        return
    configure_logging(settings.log_level)
    _give_large_blocks_back()
    try:
        check_files(settings)
        options = connection_options(settings)
        ops = listen(settings.ingest_ops_host, settings.ingest_ops_port, "INGEST_OPS_PORT")
        take = claim if settings.ingest_workers > 1 else listen
        api = take(settings.ingest_host, settings.ingest_port, "INGEST_PORT")
    except (OSError, ValueError) as error:
        stop(str(error))
    if settings.ingest_workers > 1:
        sys.exit(_keep_workers(settings, api, ops))
    _serve(settings, options, api, Alone(ops), Quotas(settings.token_burst_s))


def _serve(
    settings: IngestSettings, options: dict[str, object], api: socket.socket, place: Place, quotas: Quotas
) -> None:
    settings = settings.model_copy(update={"max_connections": _allow_connections(settings.max_connections)})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(settings, options, api, place, quotas))


def _keep_workers(settings: IngestSettings, held: socket.socket, ops: socket.socket) -> int:
    """INGEST_WORKERS over 1: run `worker` so many times on the port that is held; the exit code."""
    ledger = create()
    program = [sys.executable, *sys.orig_argv[1:]]  # this one, with the interpreter's options that it has
    supervisor = Supervisor(
        settings,
        command=[*program, "worker", "--port", str(held.getsockname()[1]), "--ledger", str(ledger)],
        inherited=[ledger],
        conditions=(KAFKA, TOPIC),
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(supervisor.run(ops))


def _work(settings: IngestSettings, parsed: argparse.Namespace) -> None:
    """Be one of INGEST_WORKERS processes."""
    bind_to(parsed.parent)
    configure_logging(settings.log_level, worker=parsed.number)
    _give_large_blocks_back()
    try:
        check_files(settings)
        options = connection_options(settings)
        api = bind(settings.ingest_host, parsed.port, "INGEST_PORT", shared=True)
    except (OSError, ValueError) as error:
        stop(str(error))
    place = AsWorker(socket.socket(fileno=parsed.channel), joins=parsed.joins)
    _serve(settings, options, api, place, SharedQuotas(settings.token_burst_s, Ledger(parsed.ledger)))


def _give_large_blocks_back() -> None:
    """Let what a large body took go back to the system with its last byte.

    glibc keeps blocks of up to 32 MiB in its heap once it has seen some go, and pieces of bodies leave holes there:
    50 bombs at once took 200 MiB beyond MAX_IN_FLIGHT_BYTES, and 30 so (docs/operations/ingest-memory.md).
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another libc has other ways
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)


def _allow_connections(wanted: int) -> int:
    """Let the process have a file for each connection; how many connections it may have then."""
    needed = wanted + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed == needed:
        return wanted
    connections = max(allowed - _OTHER_FILES, 1)
    logger.warning(
        "fewer connections than MAX_CONNECTIONS: the process may not have enough open files",
        extra={"max_connections": wanted, "open_files": allowed, "connections": connections},
    )
    return connections


def _parser() -> argparse.ArgumentParser:
    lines = ["environment variables:"]
    for name, field in IngestSettings.model_fields.items():
        default = "" if field.default is None else f" [{field.default}]"
        lines.append(f"  {name.upper()}{default}\n      {field.description}")
    parser = argparse.ArgumentParser(
        prog="spillway-ingest",
        description=f"Takes collections at POST {COLLECTIONS_PATH}; answers 200 when Kafka has every payload.",
        epilog="\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", title="instead of serving", metavar="{token}")
    token_command.add_parser(commands)
    worker = commands.add_parser("worker")  # ours alone: started where INGEST_WORKERS is over 1
    for name in ("--number", "--channel", "--parent", "--port", "--ledger"):
        worker.add_argument(name, type=int, required=True)
    worker.add_argument("--joins", action="store_true")
    return parser


async def _run(
    settings: IngestSettings, options: dict[str, object], api: socket.socket, place: Place, quotas: Quotas
) -> None:
    readiness = Readiness(KAFKA, TOPIC)
    registry = process_registry(readiness)
    metrics = IngestMetrics(registry)
    admission = Admission(settings.max_in_flight_bytes)
    metrics.in_flight_bytes.set_function(lambda: admission.in_flight_bytes)
    metrics.in_flight_bytes_max.set(settings.max_in_flight_bytes)
    metrics.connections_max.set(settings.max_connections)
    link = KafkaLink(
        settings,
        make_producer=_producer_factory(settings, options),
        connect=_connector(settings, options),
        readiness=readiness,
        metrics=metrics,
    )
    writers = Writers(link, settings, metrics)
    tokens_file = _tokens_file(settings, metrics, quotas)
    bodies = Bodies(settings, admission)
    refusals = Refusals(metrics)
    connections = Connections(settings, admission=admission, refusals=refusals, metrics=metrics)
    intake = Intake(
        settings,
        access=Access(None if tokens_file is None else lambda: tokens_file.tokens, quotas),
        bodies=bodies,
        submit=writers.submit,
        refusal=lambda: link.refusal,
        refusals=refusals,
        metrics=metrics,
    )
    app = IngestApp(CollectionsEndpoint(settings, intake, bodies))
    quick = QuickRoute(intake, bodies)
    server = IngestServer(app, quick, settings, readiness=readiness, connections=connections, bodies=bodies)
    background = {
        "kafka": link.run(pending=writers.pending, troubled=writers.troubled),
        "writers": writers.run(admission.sample),
        "connections": connections.run(),
    }
    if tokens_file is not None:
        background["tokens"] = tokens_file.run()
    gc.collect()
    gc.freeze()  # a full collection looks through what requests left, and not all modules too: 3 ms, and not 60
    async with place.seen(readiness, registry, server.drain), _running(background):
        if await place.may_listen(readiness):
            host, port = api.getsockname()[:2]
            url = f"http://{host}:{port}{COLLECTIONS_PATH}"
            logger.info("serving", extra={"url": url, "topic": settings.kafka_topic})
            await server.serve(sockets=[api])
    logger.info("stopped")


def _tokens_file(settings: IngestSettings, metrics: IngestMetrics, quotas: Quotas) -> TokensFile | None:
    """The tokens file, or None where any token will do; a bad one stops the start."""
    path = settings.ingest_tokens_file
    if path is None:
        return None
    try:
        return TokensFile(Path(path), metrics=metrics, changed=lambda tokens: quotas.keep(tokens.names))
    except OSError as error:
        stop(f"INGEST_TOKENS_FILE={path}: {error.strerror or error}")
    except InvalidTokensError as error:
        stop(f"INGEST_TOKENS_FILE={path}: {error}")


@contextlib.asynccontextmanager
async def _running(background: Mapping[str, Coroutine[object, object, None]]) -> AsyncIterator[None]:
    """The background work, for as long as the server serves. By the end of the server every request is answered."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work, name=name) for name, work in background.items()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


def _producer_factory(settings: IngestSettings, options: dict[str, object]) -> Callable[[str], AIOKafkaProducer]:
    return lambda bootstrap_servers: AIOKafkaProducer(
        **{**options, "bootstrap_servers": bootstrap_servers},
        client_id="spillway-ingest",
        acks="all",
        compression_type=None if settings.kafka_compression == "none" else settings.kafka_compression,
        enable_idempotence=False,
        linger_ms=0,
        max_batch_size=_BATCH_BYTES_UNBOUNDED,
        request_timeout_ms=round(settings.kafka_produce_timeout_s * 1000),
        metadata_max_age_ms=60_000,
    )


def _connector(settings: IngestSettings, options: dict[str, object]) -> Connect:
    security = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    return partial(
        create_conn,
        **security,
        client_id="spillway-ingest-watch",
        request_timeout_ms=round(settings.kafka_produce_timeout_s * 1000),
    )


if __name__ == "__main__":
    main()
