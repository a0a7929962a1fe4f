"""Opens the store of the S3 client that S3_CLIENT names. The one place where clients are chosen."""

from contextlib import AbstractAsyncContextManager

from prometheus_client import Counter

from services.uploader.settings import UploaderSettings
from services.uploader.store import aiobotocore, wire
from services.uploader.store.options import StoreOptions
from services.uploader.store.renewing import RenewingStore


def open_store(
    settings: UploaderSettings, options: StoreOptions, restarts: Counter
) -> AbstractAsyncContextManager[RenewingStore]:
    """A store; its last client is closed when the context ends.

    Args:
        settings: choose the client.
        options: where the objects go, and how.
        restarts: counts clients that were made anew, by `reason`.

    Raises:
        ConfigurationError: on entering: there can be no client with these settings.

    """
    match settings.s3_client:
        case "aiobotocore":
            return aiobotocore.open_store(options, restarts)
        case "wire":
            return wire.open_store(options, restarts)
