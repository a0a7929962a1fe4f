"""What can be asked of a bucket, and the answers as values. Pure; `objects` asks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from services.uploader.store.checksum import Answered


@dataclass(frozen=True, slots=True)
class Head:
    """What a HEAD says of an object. `answered.checksum` is of the kind that the store's puts carry."""

    size_bytes: int
    answered: Answered
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Listed:
    """What a listing says of an object."""

    key: str
    size_bytes: int
    etag: str


@dataclass(frozen=True, slots=True)
class Digest:
    """Of an object's bytes, which were read to the end. `md5` in base64, as `Checksum.MD5.of` gives it."""

    size_bytes: int
    md5: str


class Objects(Protocol):
    """What can be asked of a bucket. Each question raises `services.uploader.errors.StoreError` as a put does."""

    async def head(self, key: str) -> Head | None:
        """What S3 says of the object; None: there is none."""
        ...

    async def digest(self, key: str) -> Digest | None:
        """Read the object and sum its bytes; None: there is none."""
        ...

    async def page(self, prefix: str, after: str) -> tuple[list[Listed], bool]:
        """At most 1,000 objects of the prefix behind the key `after`, in the order of keys; whether there are more."""
        ...
