"""The ingest under fuzz as its clients see it: one kept connection, every answer in its form, the topic at the end."""

import http.client
import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from services.ingest.problems import Code
from tests.fuzz.reference import Judgement, Verdict
from tests.harness.broker import Topic
from tests.harness.http_client import Answer
from tests.harness.tiers import IngestTier

ITEMS_MAX = 50
HANG_S = 20
"""Seconds after which no answer is a hang: far more than the deadlines of ingest."""

_PATH = "/v1/collections"
_PLACE = re.compile(r"\bbyte \d+|`[^`]+`|after \d+ bytes")
_OF_A_BODY = ("invalid_json", "not_utf8", "invalid_envelope", "duplicate_key", "empty_data", "too_many_items")
_OF_A_CODING = (*_OF_A_BODY, "invalid_encoding")
_PROBLEM_KEYS = {"type", "title", "status", "detail", "code", "request_id", "retryable", "outcome"}


@dataclass(slots=True)
class Written:
    """A collection that was answered 200."""

    body: bytes
    version: str
    payloads: tuple[bytes, ...]
    ids: list[str]


@dataclass(slots=True)
class Target:
    """A running ingest. `written` is what its topic must hold, by request id."""

    tier: IngestTier
    topic: Topic
    answers: Counter[int] = field(default_factory=Counter)
    written: dict[str, Written] = field(default_factory=dict)
    _asked: int = 0
    _connection: http.client.HTTPConnection | None = None

    def post(self, body: bytes, cuts: Sequence[int] | None = None, coding: str | None = None) -> tuple[str, Answer]:
        """Post a body as a collection; its request id and the answer.

        Args:
            body: of the request.
            cuts: send it chunked, cut at these places, instead of with its length.
            coding: which one the body is in, if any.

        """
        self._asked += 1
        request_id = f"fuzz-{self._asked}"
        headers = {"Content-Type": "application/json", "X-Request-Id": request_id}
        if coding is not None:
            headers["Content-Encoding"] = coding
        if self._connection is None:
            parts = urlsplit(self.tier.url)
            self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=HANG_S)
        if cuts is None:
            self._connection.request("POST", _PATH, body, headers)
        else:
            places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
            chunks = [body[start:end] for start, end in itertools.pairwise(places) if start < end]
            self._connection.request(
                "POST", _PATH, iter(chunks), {**headers, "Transfer-Encoding": "chunked"}, encode_chunked=True
            )
        answer = self._connection.getresponse()
        found = Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        self.answers[found.status] += 1
        assert found.headers["x-request-id"] == request_id
        return request_id, found

    def close(self) -> None:
        """Close the kept connection."""
        if self._connection is not None:
            self._connection.close()

    def hold(self, body: bytes, judgement: Judgement, request_id: str, answer: Answer) -> None:
        """Compare an answer with the verdict, and keep in mind what a 200 stands for."""
        if answer.status == 200:
            assert judgement.verdict is not Verdict.REFUSE, f"taken, although {judgement.reason}"
            document = answer.document
            assert document["accepted"] == len(document["ids"]) == len(judgement.payloads)
            self.written[request_id] = Written(body, judgement.version, judgement.payloads, document["ids"])
            return
        document = problem_of(answer)
        assert answer.status == 400
        assert judgement.verdict is not Verdict.ACCEPT, f"refused: {document['detail']}"
        assert document["code"] in (_OF_A_CODING if judgement.verdict is Verdict.REFUSE else _OF_A_BODY)
        assert _PLACE.search(document["detail"]), f"names no place: {document['detail']}"
        if judgement.verdict is Verdict.EITHER:
            assert "nested too deeply" in document["detail"]

    def assert_all_written(self) -> None:
        """The topic holds exactly what was answered 200: every byte, in order, and nothing else."""
        found: dict[str, list[tuple[int, str, bytes]]] = {}
        versions: dict[str, set[str]] = {}
        for record in self.topic.records():
            headers = dict(record.headers)
            request_id = headers["spillway-request-id"].decode()
            index = int(headers["spillway-index"])
            found.setdefault(request_id, []).append((index, headers["spillway-id"].decode(), record.value or b""))
            versions.setdefault(request_id, set()).add(headers["spillway-version"].decode())
        assert set(found) == set(self.written)
        for request_id, written in self.written.items():
            indexes, ids, values = zip(*found[request_id], strict=True)
            assert values == written.payloads, f"changed bytes of {written.body!r}"
            assert indexes == tuple(range(len(values)))
            assert list(ids) == written.ids
            assert len(versions[request_id]) == 1
        every_id = [id_ for written in self.written.values() for id_ in written.ids]
        assert len(set(every_id)) == len(every_id)

    def assert_unharmed(self) -> None:
        """It runs, and its log has no unexpected error."""
        assert self.tier.process.returncode is None
        log = self.tier.process.output()
        for sign in ("Traceback", "unexpected error"):
            at = log.find(sign)
            assert at < 0, f"the log has:\n{log[max(at - 500, 0) : at + 3_000]}"
        assert self.tier.metric("spillway_ingest_in_flight_bytes") == 0


def problem_of(answer: Answer) -> dict[str, Any]:
    """The problem document of an answer, whose form is checked."""
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = json.loads(answer.body)
    assert set(document) == _PROBLEM_KEYS
    code = Code[document["code"].upper()]
    assert document["status"] == answer.status
    assert (document["retryable"], document["outcome"]) == (code.value.retryable, code.value.outcome)
    assert document["request_id"] == answer.headers["x-request-id"]
    assert document["detail"]
    return document
