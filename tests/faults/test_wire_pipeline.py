"""The wire client in a whole uploader, judged by the oracle: connections, names and certificates of S3 go wrong."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.s3_acts import Then, stores, unanswered
from tests.fakes.s3_adversary import Adversary, Request, Wire, stored
from tests.harness.broker import Topic
from tests.harness.certificates import Authority
from tests.harness.durations import Durations
from tests.harness.names import black_hole, names_of_a_child
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Processes
from tests.harness.tiers import Tier
from tests.harness.tls_site import HOST, Site
from tests.harness.trial import Trial
from tests.harness.waiting import until

MakePipeline = Callable[[Adversary], Pipeline]

NAME = "s3.test"
GOOD, OTHER, REFUSED, HOLE = "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"


@pytest.fixture
def on(make_topic: Callable[..., Topic], processes: Processes) -> MakePipeline:
    """A pipeline on the wire client, into a server that the test makes."""
    return lambda server: Pipeline(processes, make_topic(), server, "wire")


def failed(uploader: Tier) -> float:
    """Puts that failed so far."""
    return uploader.metric('spillway_uploader_uploads_total{outcome="failed"}')


def test_idle_connections_are_closed(on: MakePipeline, durations: Durations, adversary: Adversary) -> None:
    """A server ends connections as it likes, with or without a word, also in the moment of a put: no put fails."""
    trial = Trial(on(adversary))
    ends = itertools.cycle([Then.CLOSE, Then.CUT, Then.RESET])
    numbers = itertools.count()

    async def fickle(wire: Wire, request: Request) -> None:
        number = next(numbers)
        if wire.requests > 1 and number % 5 == 0:
            await unanswered(next(ends), read=number % 2 == 0)(wire, request)
        elif number % 7 == 0:
            await stores(then=next(ends))(wire, request)
        else:
            await stored(wire, request)

    with trial.under_load("closed while idle") as load:
        adversary.always = fickle
        trial.endure(load, durations.fault_s)
        until(lambda: next(numbers) > 300, "300 requests", deadline_s=20)
    assert sum(adversary.accepted.values()) > 30
    assert failed(trial.uploader) == 0


def test_an_idle_uploader_keeps_nothing_that_is_dead(on: MakePipeline, adversary: Adversary) -> None:
    """Between two bursts the server restarts and all connections end: the second burst meets no error."""
    trial = Trial(on(adversary))
    with trial.under_load("the first burst"):
        pass
    adversary.refuse(HOST)
    adversary.listen(HOST)
    with trial.under_load("the second burst"):
        pass
    assert failed(trial.uploader) == 0


def test_certificates_are_renewed(on: MakePipeline, tmp_path: Path) -> None:
    """First the server's, by the same authority; then another authority takes over, and its file follows later."""
    site = Site(tmp_path)
    with Adversary(HOST, tls=site.context) as server:
        trial = Trial(on(server), {"AWS_CA_BUNDLE": site.bundle})
        restarts = "spillway_uploader_store_restarts_total"
        with trial.under_load("certificates are renewed") as load:
            site.present(site.authority.issue("s3", hosts=(HOST,)))
            server.reset_all()
            written = server.shelf.writes
            until(lambda: server.shelf.writes > written + 50, "objects under the renewed one", deadline_s=20)
            assert trial.uploader.metric(restarts) == 0
            successor = Authority("its successor")
            site.present(successor.issue("s3", hosts=(HOST,)))
            server.reset_all()
            until(lambda: "s3" in str(trial.uploader.reasons()), "readiness to name S3", deadline_s=30)
            trial.endure(load, 1)
            site.trust(successor)
        assert trial.uploader.metric(restarts) > 0


def test_addresses_die_and_return(on: MakePipeline, durations: Durations, tmp_path: Path) -> None:
    """Of four addresses one refuses and one swallows: no put fails. Then one of the good ones dies, and comes back."""
    names = names_of_a_child(tmp_path, {NAME: [HOLE, REFUSED, GOOD, OTHER]})
    with Adversary(GOOD, OTHER) as server, black_hole(HOLE, server.port):
        # Most connections end with their put, so that addresses are chosen all the time.
        turns = itertools.count()

        async def short(wire: Wire, request: Request) -> None:
            await (stores(then=Then.CLOSE) if next(turns) % 3 else stored)(wire, request)

        server.always = short
        trial = Trial(on(server), {**names, "S3_ENDPOINT_URL": server.url(NAME)})
        with trial.under_load("two of four are dead") as load:
            trial.endure(load, durations.fault_s)
        assert failed(trial.uploader) == 0
        assert server.accepted[GOOD] > 10
        assert server.accepted[OTHER] > 10
        with trial.under_load("another one dies") as load:
            server.refuse(OTHER)
            trial.endure(load, durations.fault_s)
            server.listen(OTHER)
