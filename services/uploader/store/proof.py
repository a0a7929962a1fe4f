"""Whether a success of S3 is one: the answer must be S3's, and of the bytes sent. Pure; both clients ask here."""

from binascii import a2b_base64, hexlify

from services.uploader.errors import TransientError
from services.uploader.store.checksum import Answered, Checksum, Verdict, compare


def check(kind: Checksum, key: str, sent: str, answered: Answered) -> None:
    """Return only if S3 answered, and of these bytes. `sent` is the sum that went with the put.

    Raises:
        TransientError: it proves nothing, or other bytes.

    """
    verdict, answer = compare(kind, sent, answered)
    if verdict is Verdict.DIFFERENT:
        message = f"S3 says that {key} has {kind} {answer}, and {sent} was sent"
        if kind is Checksum.MD5:
            message += f" (ETag {answered.etag}); if this server's ETags are no MD5s, set S3_CHECKSUM=crc32"
        raise TransientError("checksum_mismatch", message)
    if verdict is Verdict.UNPROVEN and not answered.etag:
        raise TransientError("unexpected_answer", f"a success for {key} without an ETag: not an answer of S3")


def is_md5_etag(sent: str, etag: bytes) -> bool:
    """Whether an ETag is this MD5, as S3 writes it: the short way to what `check` finds of nearly every put."""
    return etag == b'"%b"' % hexlify(a2b_base64(sent))
