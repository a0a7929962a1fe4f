"""Problem documents: RFC 9457 with our stable members."""

import json

import pytest

from services.ingest.problems import Code, Problem
from services.ingest.schema import ProblemDocument

CONTRACT = {400, 401, 403, 404, 405, 408, 413, 415, 429, 431, 500, 501, 503, 504}


@pytest.mark.parametrize("code", Code, ids=lambda code: code.name)
def test_every_document_is_as_documented(code: Code) -> None:
    """Each code's document passes its own schema, and its status is one of the contract's."""
    document = json.loads(Problem(code, 'a "detail"').body("r-1"))
    ProblemDocument.model_validate(document)
    assert document["status"] == code.value.status in CONTRACT
    assert document["code"] == code.name.lower()
    assert document["type"].endswith(document["code"])
    assert (document["detail"], document["request_id"]) == ('a "detail"', "r-1")


@pytest.mark.parametrize("code", Code, ids=lambda code: code.name)
def test_the_outcome_is_told_truly(code: Code) -> None:
    """A 503 promises that nothing was written; only 500 and 504 leave it open, and both may be tried again."""
    kind = code.value
    assert (kind.outcome == "unknown") == (code in {Code.INTERNAL_ERROR, Code.OUTCOME_UNKNOWN})
    if kind.status in {503, 504}:
        assert kind.retryable
    if kind.status < 500:
        assert kind.retryable == (kind.status in {408, 429})  # a slow network and a spent quota pass


def test_codes_are_distinct() -> None:
    """Two codes of equal content would be one member of the table under two names."""
    assert len(Code) == len(Code.__members__)
