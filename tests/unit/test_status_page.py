"""The parts of the status page that need no browser: its headers, the pages it serves, what the process tells of S3."""

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from services.uploader.health import StoreHealth
from services.uploader.jobs.lag.look import Group, Look, Oldest, PartitionLook, aged
from services.uploader.limiter import Limiter
from services.uploader.settings import UploaderSettings
from services.uploader.status import manual
from services.uploader.status.observer import Observer
from services.uploader.status.process import IDLE_AFTER_S, LATELY_S, SILENT_AFTER_S, Process
from services.uploader.status.routes import status_routes
from services.uploader.status.seen import S3State
from services.uploader.upload_limit import UploadLimit
from shared.ops import Readiness, listen, serve_ops
from shared.telemetry import UploaderMetrics
from tests.harness.background import Background
from tests.harness.http_client import Answer, request
from tests.harness.waiting import eventually


class House:
    """The owners that the page asks, and a clock."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = UploaderMetrics(self.registry)
        self.readiness = Readiness("s3")
        self.health = StoreHealth(self.readiness, self.metrics)
        self.limit = UploadLimit(Limiter(16), self.metrics)
        self.process = Process(self.readiness, self.health, self.limit, self.metrics)

    def s3(self, unix_s: float, *, quiet_s: float = 0.0, in_flight: int = 1) -> S3State:
        """The state at `unix_s`, with so many puts under way and the last one's end `quiet_s` ago."""
        self.limit.in_flight, self.limit.moved_s = in_flight, 1000.0
        return self.process.look(1000.0 + quiet_s, unix_s).s3


class Port(Background):
    """An ops port of its own, with the page on it. Nobody looks at Kafka."""

    def __init__(self) -> None:
        super().__init__("ops port", stop_deadline_s=10)
        self._socket = listen("127.0.0.1", 0, "UPLOADER_OPS_PORT")
        self._house = House()
        self._url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    async def run(self) -> None:
        """Serve until told to stop."""
        house = self._house
        routes = status_routes(Observer(UploaderSettings(s3_bucket="bucket")), house.process)
        async with serve_ops(self._socket, house.readiness, house.registry, routes):
            await eventually(self.stopping.is_set, "the tests to end", deadline_s=120)

    def get(self, path: str) -> Answer:
        """The answer to a GET."""
        return request(self._url + path, method="GET")


@pytest.fixture(scope="module")
def port() -> Iterator[Port]:
    with Port() as served:
        yield served


def test_what_the_puts_say_of_s3() -> None:
    """The whole life of an outage, a moment a line: seconds since 1970, then what is said."""
    house = House()
    assert house.s3(99, in_flight=0) is S3State.STARTING
    house.health.succeeded(alone=True)
    assert house.s3(100) is S3State.TAKING
    assert house.s3(100, quiet_s=SILENT_AFTER_S) is S3State.SILENT
    assert house.s3(100, quiet_s=SILENT_AFTER_S, in_flight=0) is S3State.TAKING, "nobody waits for an answer"
    assert house.s3(100, quiet_s=IDLE_AFTER_S, in_flight=0) is S3State.IDLE
    house.health.failed("slow_down", "503", 101.0)
    assert house.s3(101) is S3State.FAILING
    house.health.succeeded()  # one that was under way
    house.health.settle(101.2)
    house.health.failed("slow_down", "503", 101.3)
    assert house.s3(101.4) is S3State.SHEDDING
    assert house.s3(101.2 + LATELY_S) is S3State.FAILING, "nothing was stored for two seconds"
    house.health.succeeded()
    house.health.settle(110.0)
    assert house.s3(110.0) is S3State.RECOVERING
    house.health.settle(120.0)
    assert house.s3(120.0) is S3State.TAKING


def test_a_new_fault_knows_nothing_of_what_was_stored_before_it() -> None:
    """The first moment of an outage is not "takes some": what was stored a moment ago was stored before it."""
    house = House()
    house.health.succeeded(alone=True)
    house.health.succeeded()
    house.health.failed("timeout", "no answer", 100.0)
    house.health.settle(100.1)
    assert house.s3(100.1) is S3State.FAILING


def test_the_page_may_run_its_own_script_and_nothing_else(port: Port) -> None:
    """The policy names the sums of just the style and the script that are in the page, and lets nothing else in."""
    for path in ("/", "/operations/s3-is-away"):
        answer = port.get(path)
        html = answer.body.decode()
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        for tag, directive in (("style", "style-src"), ("script", "script-src")):
            for text in re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL):
                digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
                assert policy[directive] == f"'sha256-{digest}'"
        assert (
            policy["default-src"]
            == policy["base-uri"]
            == policy["form-action"]
            == policy["frame-ancestors"]
            == "'none'"
        )
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", html.split("<main")[0])
        assert not re.search(r"\s(?:style|on[a-z]+)=", html), "what the policy would refuse"


@pytest.mark.parametrize("name", manual.names())
def test_each_operators_page_is_served(port: Port, name: str) -> None:
    """Each is there under its name, with a title; its links to others, and to headings, lead somewhere."""
    answer = port.get("/operations/" if name == manual.INDEX else f"/operations/{name}")
    assert answer.status == 200
    html = answer.body.decode()
    assert len(html.split("<title>")[1].split("</title>")[0]) > 5
    for href in re.findall(r'href="([^"]*)"', html.split("<main")[1]):
        page, _, anchor = href.partition("#")
        if page.startswith("https://"):
            continue
        target = port.get(f"/operations/{page or name}")
        assert target.status == 200, href
        assert not anchor or f'id="{anchor}"' in target.body.decode(), href


@pytest.mark.parametrize("path", ["/operations/nothing", "/operations/..%2f..%2fREADME", "/operations/../README.md"])
def test_what_is_no_page_is_not_served(port: Port, path: str) -> None:
    """404, with the names of those that are there; no path leads out of the folder."""
    answer = port.get(path)
    assert answer.status == 404
    assert b"<h1" not in answer.body


def test_the_document_is_there_before_kafka_was_asked(port: Port) -> None:
    """The first question is answered at once: this process's part, and that the pipeline is not known yet."""
    answer = port.get("/status.json")
    assert answer.status == 200
    assert answer.document["pipeline"] is None
    assert answer.headers["cache-control"] == "no-store"


def seen(start: int, end: int, oldest: Oldest | None, at_ms: int) -> Look:
    partition = PartitionLook(0, 0, start, end, oldest=oldest)
    return Look(at_ms, at_ms / 1000, "payloads", "this", 1000, False, Group("g", "Stable"), (partition,))


AGED: list[tuple[str, Look, Look, Oldest | None]] = [
    ("nothing waits now", seen(5, 5, None, 2000), seen(3, 5, Oldest(3, 900), 1000), None),
    ("it still waits", seen(3, 9, None, 2000), seen(3, 5, Oldest(3, 900), 1000), Oldest(3, 900)),
    ("stored, others wait", seen(4, 9, None, 2000), seen(3, 5, Oldest(3, 900), 1000), Oldest(3, 900)),
    ("nothing waited then", seen(5, 9, None, 2000), seen(5, 5, None, 1000), Oldest(5, 1000)),
    ("only holes then, and now", seen(3, 5, None, 2000), seen(3, 5, Oldest(None), 1000), Oldest(None)),
    ("only holes then, records since", seen(3, 9, None, 2000), seen(3, 5, Oldest(None), 1000), Oldest(5, 1000)),
    ("it could not be read", seen(3, 9, None, 2000), seen(3, 5, None, 1000), None),
]  # fmt: skip


@pytest.mark.parametrize(("now", "then", "oldest"), [row[1:] for row in AGED], ids=[row[0] for row in AGED])
def test_between_two_readings_ages_err_to_the_side_of_the_alarm(now: Look, then: Look, oldest: Oldest | None) -> None:
    """Never younger than the truth, never unknown where something is known, and no lag hidden behind old holes."""
    assert aged(now, then).partitions[0].oldest == oldest


def test_ages_of_another_topic_say_nothing() -> None:
    """A topic made anew has other records at the same offsets."""
    then = replace(seen(3, 5, Oldest(3, 900), 1000), topic_id="gone")
    assert aged(seen(3, 9, None, 2000), then).partitions[0].oldest is None


def test_pages_that_are_not_there_are_not_remembered() -> None:
    """Whoever reaches the port could fill the memory with their names."""
    before = manual._page.cache_info().currsize
    assert [manual.page(f"no-such-page-{number}") for number in range(100)] == [None] * 100
    assert manual._page.cache_info().currsize == before
