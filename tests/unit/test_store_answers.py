"""What each answer of S3 means: a table over all codes, and what must hold for any."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.uploader.errors import ClientSetupError, ConfigurationError, PoisonRecord, StoreError, TransientError
from services.uploader.store.answers import (
    CLIENT_SETUP,
    ENVIRONMENT,
    POISON,
    SLOW_DOWN,
    Refusal,
    classify,
    error_of,
    reason_of,
)

KNOWN = sorted(SLOW_DOWN | POISON | CLIENT_SETUP | ENVIRONMENT)
statuses = st.integers(min_value=0, max_value=999)
codes = st.one_of(st.sampled_from(KNOWN), st.text(max_size=80), st.just(""))

TABLE = [
    # credentials, and permission that other credentials may have
    (400, "ExpiredToken", ClientSetupError, "expired_token"),
    (403, "InvalidAccessKeyId", ClientSetupError, "invalid_access_key_id"),
    (403, "SignatureDoesNotMatch", ClientSetupError, "signature_does_not_match"),
    (403, "AccessDenied", ClientSetupError, "access_denied"),
    (400, "InvalidToken", ClientSetupError, "invalid_token"),
    (401, "", ClientSetupError, "http_401"),
    (403, "", ClientSetupError, "http_403"),
    # another region
    (301, "PermanentRedirect", ClientSetupError, "permanent_redirect"),
    (307, "TemporaryRedirect", ClientSetupError, "temporary_redirect"),
    (307, "", ClientSetupError, "http_307"),
    (400, "AuthorizationHeaderMalformed", ClientSetupError, "authorization_header_malformed"),
    (400, "IllegalLocationConstraintException", ClientSetupError, "illegal_location_constraint_exception"),
    # what a person must mend
    (404, "NoSuchBucket", ConfigurationError, "no_such_bucket"),
    (404, "", ConfigurationError, "no_such_bucket"),
    (403, "RequestTimeTooSkewed", ConfigurationError, "request_time_too_skewed"),
    (400, "KMS.DisabledException", ConfigurationError, "kms_disabled_exception"),
    (400, "KMS.NotFoundException", ConfigurationError, "kms_not_found_exception"),
    (400, "AccessControlListNotSupported", ConfigurationError, "access_control_list_not_supported"),
    (400, "InvalidStorageClass", ConfigurationError, "invalid_storage_class"),
    (400, "InvalidTag", ConfigurationError, "invalid_tag"),
    (403, "QuotaExceeded", ConfigurationError, "quota_exceeded"),
    (507, "XMinioStorageFull", ConfigurationError, "x_minio_storage_full"),
    (501, "NotImplemented", ConfigurationError, "not_implemented"),
    (413, "", ConfigurationError, "http_413"),  # a proxy's limit, and not S3's word on the object
    (405, "MethodNotAllowed", ConfigurationError, "method_not_allowed"),
    # never
    (400, "EntityTooLarge", PoisonRecord, "entity_too_large"),
    (400, "KeyTooLongError", PoisonRecord, "key_too_long_error"),
    (400, "MetadataTooLarge", PoisonRecord, "metadata_too_large"),
    # what passes
    (503, "SlowDown", TransientError, "slow_down"),
    (503, "", TransientError, "slow_down"),
    (429, "", TransientError, "slow_down"),
    (400, "KMS.ThrottlingException", TransientError, "slow_down"),
    (400, "RequestTimeout", TransientError, "timeout"),
    (500, "InternalError", TransientError, "server_error"),
    (502, "", TransientError, "server_error"),
    (409, "OperationAborted", TransientError, "operation_aborted"),
    (409, "ConditionalRequestConflict", TransientError, "conditional_request_conflict"),
    (412, "PreconditionFailed", TransientError, "precondition_failed"),
    (400, "BadDigest", TransientError, "bad_digest"),
    (400, "SomethingNobodyHasHeardOf", TransientError, "something_nobody_has_heard_of"),
    (0, "", TransientError, "http_0"),
]


@pytest.mark.parametrize(("status", "code", "kind", "reason"), TABLE, ids=lambda value: str(value)[:40])
def test_what_an_answer_means(status: int, code: str, kind: type[StoreError], reason: str) -> None:
    """Class and reason, exactly; the message names the bucket and repeats what S3 said."""
    error = error_of(Refusal(status, code, "in its words"), "bucket")
    assert type(error) is kind
    assert error.reason == reason
    assert f"{status} {code}" in str(error)
    assert "bucket" in str(error)
    assert "in its words" in str(error)


@pytest.mark.parametrize("code", sorted(CLIENT_SETUP | ENVIRONMENT))
def test_an_environment_error_is_one_at_any_status(code: str) -> None:
    """What a person must mend is no weather, and no record's fault, whatever status it comes with (but shed load)."""
    for status in (200, 301, 400, 403, 404, 409, 413, 500):
        assert issubclass(classify(status, code), ConfigurationError)  # type: ignore[arg-type]


def test_no_code_has_two_meanings() -> None:
    """The tables are disjoint, so their order decides nothing."""
    tables = [SLOW_DOWN, POISON, CLIENT_SETUP, ENVIRONMENT]
    assert len(frozenset().union(*tables)) == sum(map(len, tables))
    assert frozenset({"EntityTooLarge", "KeyTooLongError", "MetadataTooLarge"}) == POISON


@given(statuses, codes)
def test_nothing_else_is_ever_poison(status: int, code: str) -> None:
    """No answer but three codes on a 4xx may send a record to the dead letters."""
    poison = code in {"EntityTooLarge", "KeyTooLongError", "MetadataTooLarge"} and 400 <= status < 500 and status != 429
    assert (classify(status, code) is PoisonRecord) == poison


@given(statuses, codes)
def test_a_reason_is_a_label(status: int, code: str) -> None:
    """Whatever a server sends, what becomes a metric's label is short and plain."""
    reason = reason_of(status, code)
    assert 0 < len(reason) <= 120
    assert reason.isascii()
    assert reason.replace("_", "").isalnum()


def test_the_right_region_is_named_when_s3_names_it() -> None:
    """An operator who reads only the message can mend it."""
    error = error_of(Refusal(301, "PermanentRedirect", "wrong endpoint", region="eu-north-1"), "bucket")
    assert "set AWS_REGION=eu-north-1" in str(error)
    error = error_of(Refusal(307, "TemporaryRedirect", "", endpoint="bucket.s3.eu-north-1.test"), "bucket")
    assert "bucket.s3.eu-north-1.test" in str(error)


@pytest.mark.parametrize(
    ("code", "variable"),
    [
        ("AccessControlListNotSupported", "S3_ACL"),
        ("InvalidStorageClass", "S3_STORAGE_CLASS"),
        ("InvalidTag", "S3_TAGS"),
        ("KMS.DisabledException", "S3_SSE_KMS_KEY_ID"),
        ("NoSuchBucket", "S3_BUCKET"),
    ],
)
def test_a_setting_at_fault_is_named(code: str, variable: str) -> None:
    """Where a code can only come from one setting, its message says which."""
    assert variable in str(error_of(Refusal(400, code), "bucket"))


def test_a_servers_text_is_cut_and_hides_nothing() -> None:
    """Two megabytes of a proxy's page are held by each put that waits, and shown on the status page."""
    said = str(error_of(Refusal(403, "AccessDenied", "no\u202e\n" + "A" * 2_000_000), "bucket"))
    assert len(said) < 1200
    assert said.isprintable()
