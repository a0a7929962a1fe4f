"""Certificates renewed on disk: running tiers take them for new connections, and only those that are of use."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness.certificates import Authority, ProjectedFolder
from tests.harness.secure_broker import SecureBroker
from tests.harness.waiting import until
from tests.integration.conftest import MakeSecured

if TYPE_CHECKING:
    from tests.harness.secured import Secured
    from tests.harness.tiers import IngestTier, Tier

USERS = ("ingest", "uploader")
KEPT, TAKEN = "the last good ones stay in force", "new certificates are in force"


def _files(authority: Authority, user: str) -> dict[str, bytes]:
    """What a cluster projects for a user: the brokers' authority, and a certificate with its key."""
    pair = authority.issue(user)
    return {"ca.crt": authority.certificate, "user.crt": pair.certificate, "user.key": pair.key}


class Projected:
    """Both tiers, each with a folder of its own, on a broker that wants client certificates."""

    def __init__(self, broker: SecureBroker, make_secured: MakeSecured, directory: Path) -> None:
        self.folders = {user: ProjectedFolder(directory / user) for user in USERS}
        self._broker = broker
        self.publish(broker.authority)
        broker.kafka.start()
        self.secured: Secured = make_secured(broker)
        self.ingest: IngestTier = self.secured.ingest(self._variables("ingest"))
        self.tiers: tuple[Tier, ...] = (self.ingest, self.secured.uploader(self._variables("uploader")))
        self.works()

    def publish(self, authority: Authority, change: Callable[[dict[str, bytes]], object] = lambda _files: None) -> None:
        """New certificates of this authority for both, `change`d before they are laid down."""
        for user, folder in self.folders.items():
            files = _files(authority, user)
            change(files)
            folder.publish(files)

    def broker_with(self, authority: Authority) -> None:
        """The broker anew: all connections are gone, its certificate is of this authority, and it trusts no other."""
        self._broker.kafka.kill()
        self._broker.trust([authority])
        self._broker.serve_with(authority.issue("broker", hosts=("127.0.0.1",)))
        self._broker.kafka.start()

    def works(self) -> None:
        """Both tiers get ready by themselves, and a collection goes through."""
        for tier in self.tiers:
            tier.wait_ready()
        self.secured.post(self.ingest, 1)
        self.secured.all_stored()

    def said(self, words: str) -> list[int]:
        """How often each tier has said so."""
        return [tier.process.output().count(words) for tier in self.tiers]

    def _variables(self, user: str) -> dict[str, str]:
        folder = self.folders[user]
        return {
            **self._broker.environment("MTLS"),
            "KAFKA_SSL_CAFILE": folder.path("ca.crt"),
            "KAFKA_SSL_CERTFILE": folder.path("user.crt"),
            "KAFKA_SSL_KEYFILE": folder.path("user.key"),
        }


@pytest.fixture
def projected(own_secure_broker: SecureBroker, make_secured: MakeSecured, tmp_path: Path) -> Projected:
    """Both tiers at work with their first certificates."""
    return Projected(own_secure_broker, make_secured, tmp_path)


def test_a_new_authority(projected: Projected) -> None:
    """Everything is renewed, and the broker takes nothing of old any more: the same processes go on."""
    pids, renewed = [tier.process.pid for tier in projected.tiers], Authority("the CA of next year")
    projected.publish(renewed)
    projected.broker_with(renewed)
    projected.works()
    assert [tier.process.pid for tier in projected.tiers] == pids
    assert set(projected.secured.answers.statuses) == {200}
    assert min(projected.said(TAKEN)) >= 1


def _another_key(files: dict[str, bytes]) -> None:
    files["user.key"] = Authority("nobody").issue("nobody").key


def test_files_of_no_use(projected: Projected, own_secure_broker: SecureBroker) -> None:
    """A key that is not the certificate's: the last good ones stay in force, the log says so once, and whole ones are
    taken when they come. tests/unit/test_certificates.py has the other ways to be of no use.
    """
    authority = own_secure_broker.authority
    projected.publish(authority, _another_key)
    projected.broker_with(authority)  # so that all connections are new ones
    projected.works()
    assert projected.said(KEPT) == [1, 1]
    assert projected.said(TAKEN) == [0, 0]
    projected.publish(authority)
    projected.broker_with(authority)
    projected.works()
    until(lambda: projected.said(TAKEN) == [1, 1], "both tiers to take the whole files", deadline_s=10)
    assert projected.said(KEPT) == [1, 1]
