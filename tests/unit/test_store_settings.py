"""The S3_* settings: what stops the start, and what becomes of the rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.uploader.settings import UploaderSettings, tagging
from services.uploader.store.checksum import Checksum
from services.uploader.store.options import StoreOptions
from shared.settings import load


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in UploaderSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("S3_BUCKET", "bucket")


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"S3_SSE": "aes"}, "S3_SSE"),
        ({"S3_SSE_KMS_KEY_ID": "key"}, "S3_SSE_KMS_KEY_ID needs S3_SSE=aws:kms"),
        ({"S3_SSE": "AES256", "S3_SSE_KMS_KEY_ID": "key"}, "S3_SSE_KMS_KEY_ID needs S3_SSE=aws:kms"),
        ({"S3_STORAGE_CLASS": "COLD"}, "S3_STORAGE_CLASS=COLD is none of STANDARD"),
        ({"S3_STORAGE_CLASS": "a b", "S3_ENDPOINT_URL": "http://s3:9000"}, "S3_STORAGE_CLASS=a b"),
        ({"S3_ACL": "everybody"}, "S3_ACL"),
        ({"S3_CHECKSUM": "md4"}, "S3_CHECKSUM"),
        ({"S3_CREATE_ONLY": "perhaps"}, "S3_CREATE_ONLY"),
        ({"S3_ADDRESSING_STYLE": "host"}, "S3_ADDRESSING_STYLE"),
        ({"S3_ENDPOINT_URL": "s3:9000"}, "S3_ENDPOINT_URL"),
        ({"AWS_REGION": "eu north"}, "AWS_REGION"),
        ({"S3_TAGS": "a"}, "S3_TAGS: not of the form a=b&c=d"),
        ({"S3_TAGS": "&".join(f"k{n}=v" for n in range(11))}, "S3_TAGS: 11 tags"),
        ({"S3_TAGS": "a=b&a=c"}, "S3_TAGS: a tag stands there twice"),
        ({"S3_TAGS": "=b"}, "S3_TAGS: tag ''"),
        ({"S3_TAGS": "k" * 129 + "=v"}, "S3_TAGS"),
        ({"S3_TAGS": "k=" + "v" * 257}, "S3_TAGS"),
        ({"S3_TAGS": "aws:k=v"}, "S3_TAGS: tag 'aws:k'"),
        ({"S3_TAGS": "k=a%3Bb"}, "S3_TAGS: tag 'k': only letters"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_value_names_its_variable(
    variables: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """S3 would refuse every object of a deployment with such a setting: the start says so instead."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stopped:
        load(UploaderSettings)
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err


def test_every_option_reaches_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting is read and forgotten."""
    for name, value in {
        "S3_ENDPOINT_URL": "http://s3:9000",
        "AWS_REGION": "eu-north-1",
        "S3_SSE": "aws:kms",
        "S3_SSE_KMS_KEY_ID": "key",
        "S3_STORAGE_CLASS": "ANOTHER_MAKERS",
        "S3_TAGS": "a=b c&d=",
        "S3_ACL": "private",
        "S3_CREATE_ONLY": "true",
        "S3_CHECKSUM": "sha256",
    }.items():
        monkeypatch.setenv(name, value)
    assert StoreOptions.of(load(UploaderSettings), 7) == StoreOptions(
        bucket="bucket",
        endpoint_url="http://s3:9000",
        path_style=True,
        region="eu-north-1",
        sse="aws:kms",
        sse_kms_key_id="key",
        storage_class="ANOTHER_MAKERS",
        tags="a=b%20c&d=",
        acl="private",
        create_only=True,
        checksum=Checksum.SHA256,
        connections_max=7,
    )


def test_nothing_is_asked_for_by_default() -> None:
    """Encryption, class, tags and ACL are the bucket's business unless asked for; the sum is on."""
    assert StoreOptions.of(load(UploaderSettings), 64) == StoreOptions(bucket="bucket", checksum=Checksum.MD5)


@given(st.text(max_size=40))
def test_tags_are_refused_or_written_safely(text: str) -> None:
    """Whatever stands in the variable, what goes into a header is plain, and reading it again gives the same."""
    try:
        header = tagging(text)
    except ValueError:
        return
    assert header.isascii()
    assert header.isprintable()
    assert tagging(header) == header
