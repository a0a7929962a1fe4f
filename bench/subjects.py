"""What is compared: our tiers in their forms, and the peers. Starts them on a stand; measures nothing.

A subject's name says what it is: `ours` (S3_CLIENT=wire), `ours-aiobotocore`, each with `-tls`, `-2-ingest`,
`-2-uploaders`, `-ingest` or `-uploader` alone behind it; any other name is a peer's folder.
"""

import functools
import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.building import build_peer
from bench.peer import FOLDER, read
from bench.processes import free_port, wait_ready
from bench.stand import BUCKET, CREDENTIALS, Stand
from deploy.local.process import ServerProcess
from services.ingest.settings import IngestSettings
from services.uploader.settings import UploaderSettings
from tests.harness.broker import Topic

CLIENTS = {"ours": "wire", "ours-aiobotocore": "aiobotocore"}


class Skipped(Exception):  # noqa: N818 - no error: a subject that this machine or this version cannot run
    """Why there is no such subject here."""


@dataclass(frozen=True, slots=True)
class Form:
    """One of our own forms, as its name says."""

    client: str
    tls: bool = False
    ingests: int = 1
    uploaders: int = 1


@dataclass(slots=True)
class Subject:
    """A running subject.

    Attributes:
        name: as asked for.
        processes: by role; every one counts as the subject's CPU.
        url: takes collections; empty where it only stores.
        counted: its answer says how many payloads were accepted.
        keeps_bytes: what it stores is byte for byte what was sent.
        stores: it ends in objects.
        topic: where one that stores nothing leaves its records.

    """

    name: str
    url: str
    counted: bool
    keeps_bytes: bool
    stores: bool
    processes: dict[str, list[ServerProcess]] = field(default_factory=dict)
    topic: Topic | None = None

    def records(self) -> int:
        """How many the topic holds."""
        return sum(self.topic.ends().values()) if self.topic else 0

    def pids(self) -> dict[str, list[int]]:
        """By role."""
        return {role: [process.pid for process in some] for role, some in self.processes.items()}

    def all_processes(self) -> list[ServerProcess]:
        """Without their roles."""
        return [process for some in self.processes.values() for process in some]


def form_of(name: str) -> Form | None:
    """Our form of that name; None: it is a peer's."""
    if not name.startswith("ours"):
        return None
    parts = name.removeprefix("ours").split("-")
    return Form(
        client="aiobotocore" if "aiobotocore" in parts else "wire",
        tls="tls" in parts,
        ingests=0 if "uploader" in parts else 2 if "ingest" in parts and "2" in parts else 1,
        uploaders=0 if "ingest" in parts and "2" not in parts else 2 if "uploaders" in parts else 1,
    )


def supports(client: str) -> bool:
    """Whether this version knows that S3 client."""
    return client in typing.get_args(UploaderSettings.model_fields["s3_client"].annotation)


def start(stand: Stand, name: str, topic: Topic | None = None, settings: Mapping[str, str] | None = None) -> Subject:
    """Start a subject and wait until it serves.

    Args:
        stand: what it stands on.
        name: see the module.
        topic: read by an uploader alone; otherwise each subject gets its own.
        settings: of our tiers, over the benchmark's.

    Raises:
        Skipped: not on this machine, or not in this version.
        BenchError: it does not start.

    """
    topic = topic or stand.topic(name)
    form = form_of(name)
    if form is None:
        return _start_peer(stand, name, topic)
    return _start_ours(stand, name, form, topic, settings or {})


def _start_ours(stand: Stand, name: str, form: Form, topic: Topic, chosen: Mapping[str, str]) -> Subject:
    if form.uploaders and not supports(form.client):
        raise Skipped(f"S3_CLIENT={form.client} is not known to this version")
    if form.ingests > 1 and "ingest_workers" not in IngestSettings.model_fields:
        raise Skipped("INGEST_WORKERS is not known to this version")
    common = {**topic.environment(), **chosen}
    subject = Subject(name, "", counted=True, keeps_bytes=True, stores=form.uploaders > 0, topic=topic)
    waits = []
    if form.ingests:
        port, ops_port = free_port(), free_port()
        subject.url = f"http://127.0.0.1:{port}/v1/collections"
        settings = {
            **common,
            "INGEST_HOST": "127.0.0.1",
            "INGEST_PORT": str(port),
            "INGEST_OPS_HOST": "127.0.0.1",
            "INGEST_OPS_PORT": str(ops_port),
            "INGEST_DRAIN_DELAY_S": "0",
        }
        if form.ingests > 1:
            settings["INGEST_WORKERS"] = str(form.ingests)
        process = _python(stand, "ingest", ["services.ingest"], settings)
        subject.processes["ingest"] = [process]
        waits.append((process, ops_port))
    for _ in range(form.uploaders):
        ops_port = free_port()
        settings = {
            **common,
            **stand.s3_environment(tls=form.tls),
            "S3_CLIENT": form.client,
            "UPLOADER_OPS_HOST": "127.0.0.1",
            "UPLOADER_OPS_PORT": str(ops_port),
        }
        process = _python(stand, "uploader", ["services.uploader", "run"], settings)
        subject.processes.setdefault("uploader", []).append(process)
        waits.append((process, ops_port))
    for process, ops_port in waits:
        wait_ready(process, f"http://127.0.0.1:{ops_port}/readyz")
    return subject


def _python(stand: Stand, name: str, arguments: list[str], settings: Mapping[str, str]) -> ServerProcess:
    return stand.children.start(name, [sys.executable, "-m", *arguments], settings)


@functools.cache
def _built(name: str) -> Mapping[str, str]:
    """Where a peer was built, once a benchmark; or why not."""
    folder = FOLDER / name
    if not (folder / "peer.json").exists():
        return {"skipped": f"there is no bench/peers/{name}"}
    built = build_peer(folder)
    return {"skipped": built} if isinstance(built, str) else {"BUILD_DIR": str(built)}


def _start_peer(stand: Stand, name: str, topic: Topic) -> Subject:
    built = _built(name)
    if "skipped" in built:
        raise Skipped(built["skipped"])
    values = {
        **built,
        "PORT": str(free_port()),
        "S3_ENDPOINT": stand.s3_endpoint(),
        "S3_BUCKET": BUCKET,
        "KAFKA_BOOTSTRAP": topic.bootstrap_servers,
        "KAFKA_TOPIC": topic.name,
    }
    peer = read(FOLDER / name).filled(values)
    process = stand.children.start(name, peer.command, {**CREDENTIALS, **peer.environment})
    if peer.ready_url:
        wait_ready(process, peer.ready_url)
    stores = bool(peer.roles & {"end_to_end", "uploader"})
    return Subject(name, peer.ingest_url, peer.counted, peer.keeps_bytes, stores, {"peer": [process]}, topic)
