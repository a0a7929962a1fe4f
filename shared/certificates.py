"""TLS towards Kafka: certificates are read anew from their files whenever these have changed, without a restart.

Owns the one SSL context of a process and the last good state of its files. aiokafka hands its context to every
connection that it opens, so the context itself looks at the files before each. A real context cannot be mended in
place: certificates of authorities only add up in it, so an authority that was taken out of the file would be trusted
until the restart. What is on disk and cannot be used (half written, a key that is not the certificate's) changes
nothing: the last good files stay in force, and the log says so once.
"""

import hashlib
import logging
import ssl
from dataclasses import dataclass
from typing import Self

from pydantic import SecretStr

logger = logging.getLogger("spillway.kafka.certificates")


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where certificates lie, as PEM. `authorities` None: those that the system trusts. `certificate` None: no client
    certificate, and no key then.
    """

    authorities: str | None
    certificate: str | None
    key: str | None
    key_password: SecretStr | None

    def digest(self) -> bytes:
        """What the files hold now, in 32 bytes.

        Raises:
            ValueError: one cannot be read; the message names the variable.

        """
        found = hashlib.sha256()
        for variable, path in (
            ("KAFKA_SSL_CAFILE", self.authorities),
            ("KAFKA_SSL_CERTFILE", self.certificate),
            ("KAFKA_SSL_KEYFILE", self.key),
        ):
            if path is None:
                continue
            try:
                with open(path, "rb") as file:  # noqa: PTH123 - a name as the setting has it, for the message too
                    found.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise ValueError(f"{variable}: {error.strerror or error} ({path})") from error
        return found.digest()

    def context(self) -> ssl.SSLContext:
        """A new context of what the files hold now.

        Raises:
            ValueError: they cannot be used; the message names the variable.

        """
        try:
            context = ssl.create_default_context(cafile=self.authorities)
        except OSError as error:
            raise ValueError(f"KAFKA_SSL_CAFILE: {_words(error)} ({self.authorities})") from error
        if self.certificate and self.key:
            try:
                context.load_cert_chain(
                    self.certificate,
                    self.key,
                    # "" and not None: OpenSSL would ask on the terminal for the password of an encrypted key
                    self.key_password.get_secret_value() if self.key_password else "",
                )
            except OSError as error:
                if _words(error).startswith("[SSL] PEM lib"):  # all that OpenSSL says of a password that does not fit
                    raise ValueError(
                        f"KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE: no usable PEM, or KAFKA_SSL_KEY_PASSWORD is wrong or "
                        f"missing ({self.certificate}, {self.key})"
                    ) from error
                raise ValueError(
                    f"KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE: {_words(error)} ({self.certificate}, {self.key})"
                ) from error
        return context


class RenewedContext(ssl.SSLContext):
    """A client's context that is, for each connection, what its files hold then.

    Only `wrap_bio` is of use, which is what event loops call. Whoever wraps a socket with it directly trusts nobody.
    Reading three small files costs a connection some tenths of a millisecond on the event loop's thread.

    Raises:
        ValueError: the files cannot be used; the message names the variable.

    """

    _files: CertificateFiles
    _digest: bytes  # of the files that are in force
    _in_force: ssl.SSLContext
    _refused: str | None  # why the files as they are now cannot be used; None where they are in force

    def __new__(cls, files: CertificateFiles) -> Self:
        """Make the empty shell; a context takes its protocol here."""
        context = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        context._files = files
        context._digest = files.digest()  # before they are loaded: a change in between is then seen as one
        context._in_force = files.context()
        context._refused = None
        return context

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """One connection, with the certificates as they are now."""
        self._look()
        return self._in_force.wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    def _look(self) -> None:
        try:
            digest = self._files.digest()
            if digest != self._digest:
                self._in_force = self._files.context()
                self._digest = digest
                logger.info("new certificates are in force", extra=self._where())
        except ValueError as error:
            if self._refused != str(error):
                logger.warning(
                    "the certificates on disk cannot be used; the last good ones stay in force",
                    extra={"cause": str(error), **self._where()},
                )
            self._refused = str(error)
        else:
            self._refused = None

    def _where(self) -> dict[str, str | None]:
        return {"cafile": self._files.authorities, "certfile": self._files.certificate}


def _words(error: OSError) -> str:
    """What OpenSSL says, without the line of its own source."""
    reason = getattr(error, "reason", None)
    return error.strerror if reason is None and error.strerror else str(reason or error)
