"""Asks the bucket about one record's object, as much as it takes to tell, and counts the requests.

Decides nothing itself: `comparison` does. Retries nothing; whoever asks does.
"""

from dataclasses import dataclass

from services.uploader.errors import ConfigurationError
from services.uploader.jobs.bucket.comparison import MISSING, Expected, Told, by_bytes, by_head, by_listing
from services.uploader.store.checksum import Checksum
from services.uploader.store.found import Listed, Objects


@dataclass(slots=True)
class Requests:
    """Requests by what they cost: `gets` are GETs and HEADs."""

    heads: int = 0
    gets: int = 0
    lists: int = 0


class Checker:
    """Tells what is at a record's key."""

    def __init__(self, objects: Objects, kind: Checksum) -> None:
        """Prepare.

        Args:
            objects: of the bucket.
            kind: the sum that puts carry.

        """
        self.requests = Requests()
        self.objects = objects
        self.kind = kind

    async def look_at_bucket(self) -> None:
        """That there is one: of a bucket that does not exist, a HEAD says what it says of a missing object. One LIST,
        not counted among the others.

        Raises:
            ConfigurationError: there is none.
            StoreError: it cannot be told now.

        """
        try:
            await self.objects.page("", "")
        except ConfigurationError as error:
            if error.reason != "access_denied":  # who may not list may have the right to look at objects
                raise

    @staticmethod
    def by_listing(expected: Expected, listed: Listed) -> Told | None:
        """What a listing tells; None: the object has to be asked for."""
        told = by_listing(expected, listed)
        return told if isinstance(told, Told) else None

    async def tell(self, expected: Expected) -> Told:
        """Same, missing or different.

        Raises:
            StoreError: it could not be asked.

        """
        self.requests.heads += 1
        head = await self.objects.head(expected.key)
        told = MISSING if head is None else by_head(expected, head, self.kind)
        if isinstance(told, Told):
            return told
        self.requests.gets += 1
        digest = await self.objects.digest(expected.key)
        return MISSING if digest is None else by_bytes(expected, digest)
