"""The fast S3 client: PUT and nothing else, on connections of its own (`S3_CLIENT=wire`).

It owns one request a put: signed here (`signing`), sent on a kept connection (`connections`), and its answer judged by
the modules of the reference client (`aiobotocore`), where decision 19 names no difference. It refuses all else: it
reads, lists and deletes nothing (an aiobotocore client asks for what stands at a create-only key), fetches no
credentials (those of aiobotocore's session, which refresh themselves), knows no addressing (botocore shows it), retries
nothing but a put whose kept connection was closed before a byte of the answer, follows no redirect but a 307 within the
same bucket of AWS, and does not start where it cannot serve: behind a proxy, on S3 Express. It bounds its connections,
each wait for one or for a byte, and an answer's bytes; the whole of a put is `renewing`'s to end. It is proven by a
property test of every signature against botocore's, by a fuzzer of answers that cuts and bends them at any byte
(`tests/unit/test_wire_*`), by an adversary that speaks HTTP, TLS and DNS wrongly (`tests/faults/test_wire_*`), and by
the contract and fault suites that both clients pass.
"""

import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from prometheus_client import Counter

from services.uploader.errors import StoreError, TransientError
from services.uploader.store.answers import Refusal, error_of
from services.uploader.store.botocore_errors import making_error, translate
from services.uploader.store.checksum import Answered, Checksum
from services.uploader.store.clients import RAISED, Clients, Opened
from services.uploader.store.connections.answer_reader import Answer
from services.uploader.store.connections.connection import Connection, IdleClosedError
from services.uploader.store.connections.pool import Pool
from services.uploader.store.connections.trust import context_of
from services.uploader.store.existing import Existing
from services.uploader.store.options import StoreOptions
from services.uploader.store.proof import check, is_md5_etag
from services.uploader.store.renewing import RenewingStore, renewing
from services.uploader.store.signing.redirect import followed
from services.uploader.store.signing.request_head import Identity, RequestHead, Template
from services.uploader.store.signing.template import template_of

CREDENTIALS_KEPT_S = 1.0
"""How long credentials that are not near their end are used without asking the session again."""

_OK = 200
_TEMPORARY_REDIRECT = 307
_PRECONDITION_FAILED = 412


class WireStore:
    """Puts objects. Made by `open_client`; safe for many puts at once."""

    def __init__(
        self,
        template: Template,
        context: ssl.SSLContext | None,
        pool: Pool,
        opened: Opened,
        options: StoreOptions,
    ) -> None:
        self._template = template
        self._context = context
        self._pool = pool
        self._options = options
        self._kind = options.checksum
        self._is_md5 = options.checksum is Checksum.MD5
        self._existing = Existing(opened.client, options)
        self._credentials = opened.credentials
        self._identity: Identity | None = None  # of `_head`
        self._head: RequestHead
        self._asked_again_s = 0.0  # when the session is to be asked for credentials; monotonic
        self._sum_header = f"x-amz-checksum-{options.checksum}".encode()

    async def put(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        """Store one object; see `services.uploader.store.Store.put`."""
        sent = self._kind.of(body)
        if time.monotonic() >= self._asked_again_s:
            await self._ask_for_credentials()
        head = self._head.of(key, body, sent, metadata, time.time())
        pool = self._pool
        connection = pool.take() or await pool.connect()
        try:
            answer = await self._exchange(pool, connection, head, body, key, sent)
        except IdleClosedError:  # a fresh one never ends so: this is the only second try
            answer = await self._exchange(pool, await pool.connect(fresh=True), head, body, key, sent)
        if answer.status == _TEMPORARY_REDIRECT:
            answer = await self._follow(answer, key, body, sent, metadata)
        if answer.status == _OK and not answer.is_error_document:
            return
        if answer.status == _PRECONDITION_FAILED and self._options.create_only:
            await self._existing.compare(key, body, sent)
        else:
            raise self._refused(answer)

    async def _exchange(
        self, pool: Pool, connection: Connection, head: bytes, body: bytes, key: str, sent: str
    ) -> Answer:
        """Send a request; its answer, which is true of these bytes where it is a success."""
        try:
            answer = await connection.send(head, body)
            if answer.status == _OK and not answer.is_error_document:
                self._check(key, sent, answer)
        except TransientError:
            # What proves other bytes may be the answer to another request, and the next put's would be this one's.
            connection.abort()
            raise
        else:
            return answer
        finally:
            pool.give_back(connection)

    async def _follow(self, answer: Answer, key: str, body: bytes, sent: str, metadata: Mapping[str, str]) -> Answer:
        """The same put where a 307 says, signed anew, on a connection for it alone; or that answer again."""
        path = self._head.path_of(key).decode()
        target = followed(self._template, path, answer.header(b"location"), _region_of(answer))
        if target is None or self._identity is None:
            return answer
        pool = Pool(target.host, target.port, self._context, 1)
        try:
            head = RequestHead(target, self._identity).of(key, body, sent, metadata, time.time())
            return await self._exchange(pool, await pool.connect(), head, body, key, sent)
        finally:
            await pool.close()

    async def _ask_for_credentials(self) -> None:
        credentials = self._credentials
        try:
            frozen = await credentials.get_frozen_credentials()
        except RAISED as error:
            raise translate(error, self._options.bucket) from error
        identity = Identity(frozen.access_key, frozen.secret_key, frozen.token)
        if identity != self._identity:
            self._identity, self._head = identity, RequestHead(self._template, identity)
        # Near their end they are asked for with each put, as botocore does: the session waits for better ones.
        near_end = getattr(credentials, "refresh_needed", None)
        if near_end is None or not near_end():
            self._asked_again_s = time.monotonic() + CREDENTIALS_KEPT_S

    def _check(self, key: str, sent: str, answer: Answer) -> None:
        if not (self._is_md5 and is_md5_etag(sent, answer.headers.get(b"etag", b""))):
            check(self._kind, key, sent, self._answered(answer))

    def _answered(self, answer: Answer) -> Answered:
        return Answered(
            answer.header(b"etag"),
            answer.header(b"x-amz-server-side-encryption"),
            b"x-amz-server-side-encryption-customer-algorithm" in answer.headers,
            answer.header(self._sum_header),
        )

    def _refused(self, answer: Answer) -> StoreError:
        # A success that is an error document is one of the server, as botocore has it.
        status = 500 if answer.status == _OK else answer.status
        refusal = Refusal(
            status=status,
            code=answer.element("Code"),
            message=answer.element("Message"),
            region=_region_of(answer),
            endpoint=answer.element("Endpoint"),
        )
        return error_of(refusal, self._options.bucket)


def _region_of(answer: Answer) -> str:
    return answer.header(b"x-amz-bucket-region") or answer.element("Region")


def open_store(options: StoreOptions, restarts: Counter) -> AbstractAsyncContextManager[RenewingStore]:
    """A store on wire clients, the last of which is closed when the context ends.

    Args:
        options: where the objects go, and how.
        restarts: counts clients that were made anew, by `reason`.

    Raises:
        ConfigurationError: on entering: AWS's variables or files make no client, or this client cannot serve there.

    """
    clients = Clients(options)

    @asynccontextmanager
    async def open_client() -> AsyncIterator[WireStore]:
        async with clients.open() as opened:
            template = await _template(opened.client, options)
            context = await context_of(opened.ca_bundle) if template.tls else None
            pool = Pool(template.host, template.port, context, options.connections_max)
            try:
                yield WireStore(template, context, pool, opened, options)
            finally:
                await pool.close()

    return renewing(open_client, restarts)


async def _template(client: Any, options: StoreOptions) -> Template:
    try:
        return await template_of(client, options)
    except StoreError:
        raise
    except Exception as error:
        raise making_error(error) from error
