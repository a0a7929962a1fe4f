"""A server's certificates and what its clients trust, both to be renewed while it serves."""

import ssl
from pathlib import Path

from tests.harness.certificates import Authority, Pair, ProjectedFolder

HOST = "127.0.0.1"


class Site:
    """A server with certificates of one authority, and the bundle that clients trust."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority("ours")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._directory = directory
        self._bundle = ProjectedFolder(directory / "trusted")
        self.trust(self.authority)
        self.present(self.authority.issue("s3", hosts=(HOST,)))

    @property
    def bundle(self) -> str:
        """The path of what clients trust."""
        return self._bundle.path("ca.crt")

    def trust(self, authority: Authority) -> None:
        """Put this authority in the place of the one before."""
        self._bundle.publish({"ca.crt": authority.certificate})

    def present(self, pair: Pair) -> None:
        """Show this certificate to whoever connects from now on."""
        self.context.load_cert_chain(*pair.write(self._directory, "server"))
