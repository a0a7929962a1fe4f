"""Whom a TLS connection to S3 trusts: the authorities that botocore would, with the host's name checked."""

import asyncio
import os
import ssl

from botocore.httpsession import get_cert_path

from services.uploader.errors import ClientSetupError, ConfigurationError


async def context_of(ca_bundle: str | None) -> ssl.SSLContext:
    """A context that reads the file now; `ca_bundle` is the session's (AWS_CA_BUNDLE, or the profile's).

    Raises:
        ClientSetupError: the file cannot be read, or holds no certificate. It may be there for the next client.
        ConfigurationError: its name is empty.

    """
    path = ca_bundle if ca_bundle is not None else os.environ.get("REQUESTS_CA_BUNDLE")
    if path is not None and not path.strip():
        raise ConfigurationError("client", "AWS_CA_BUNDLE (or ca_bundle, or REQUESTS_CA_BUNDLE) is an empty name")
    try:
        return await asyncio.to_thread(_context, get_cert_path(True) if path is None else path)
    except OSError as error:  # ssl.SSLError is one
        raise ClientSetupError("tls", f"{type(error).__name__}: {error} (AWS_CA_BUNDLE={path})") from error


def _context(path: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(path)
    return context
