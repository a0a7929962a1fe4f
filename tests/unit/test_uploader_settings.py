"""Bad settings stop the start, each with a line that names its variable."""

import pytest
from pydantic import ValidationError

from services.uploader.settings import UploaderSettings
from shared.settings import load

VARIABLES = [name.upper() for name in UploaderSettings.model_fields]


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("S3_BUCKET", "bucket")


def test_the_fixed_names_of_the_contract_are_settings() -> None:
    """DESIGN §5: deployments depend on these names."""
    fixed = [
        "KAFKA_BOOTSTRAP_SERVERS",
        "KAFKA_TOPIC",
        "KAFKA_DEAD_TOPIC",
        "KAFKA_GROUP_ID",
        "KAFKA_MIN_INSYNC",
        "KAFKA_CLIENT_RACK",
        "KAFKA_SECURITY_PROTOCOL",
        "KAFKA_SASL_MECHANISM",
        "KAFKA_SASL_USERNAME",
        "KAFKA_SASL_PASSWORD",
        "KAFKA_SSL_CAFILE",
        "KAFKA_SSL_CERTFILE",
        "KAFKA_SSL_KEYFILE",
        "KAFKA_SSL_KEY_PASSWORD",
        "S3_BUCKET",
        "S3_ENDPOINT_URL",
        "S3_CLIENT",
        "S3_FOLDER",
        "S3_KEY_TEMPLATE",
        "UPLOADER_OPS_PORT",
        "MAX_WORKERS",
        "MAX_QUEUE",
        "LOG_LEVEL",
    ]
    assert set(fixed) <= set(VARIABLES)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("S3_BUCKET", "", "S3_BUCKET is required"),
        ("S3_BUCKET", "ab", "S3_BUCKET"),
        ("S3_ENDPOINT_URL", "127.0.0.1:9000", "S3_ENDPOINT_URL"),
        ("S3_CLIENT", "boto", "S3_CLIENT"),
        ("S3_FOLDER", "../up", "S3_FOLDER"),
        ("S3_KEY_TEMPLATE", "{folder}", "S3_KEY_TEMPLATE: {id} is missing"),
        ("KAFKA_BOOTSTRAP_SERVERS", "broker", "KAFKA_BOOTSTRAP_SERVERS: 'broker' is not host:port"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:1,b:99999", "'b:99999' is not host:port"),
        ("KAFKA_TOPIC", "pay loads", "KAFKA_TOPIC"),
        ("KAFKA_TOPIC", "payloads.dead", "KAFKA_DEAD_TOPIC must differ"),
        ("KAFKA_MIN_INSYNC", "two", "KAFKA_MIN_INSYNC"),
        ("KAFKA_SECURITY_PROTOCOL", "TLS", "KAFKA_SECURITY_PROTOCOL"),
        ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL", "needs KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"),
        ("KAFKA_SSL_CERTFILE", "cert.pem", "KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE go together"),
        ("KAFKA_SSL_CAFILE", "ca.pem", "KAFKA_SECURITY_PROTOCOL=PLAINTEXT uses no TLS"),
        ("MAX_WORKERS", "0", "MAX_WORKERS"),
        ("MAX_QUEUE", "-1", "MAX_QUEUE"),
        ("UPLOADER_OPS_PORT", "70000", "UPLOADER_OPS_PORT"),
        ("DRAIN_TIMEOUT_S", "8", "must be less than KAFKA_REBALANCE_TIMEOUT_S"),
        ("KAFKA_REBALANCE_TIMEOUT_S", "20", "must be less than KAFKA_REQUEST_TIMEOUT_S"),
        ("LOG_LEVEL", "loud", "LOG_LEVEL"),
    ],
)
def test_a_bad_value_names_its_variable(
    variable: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, the variable's name and what is wrong; nothing starts."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as stopped:
        load(UploaderSettings)
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, "needs KAFKA_SASL_TOKEN_FILE"),
        ({"KAFKA_SASL_TOKEN_FILE": "token", "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}, "SASL_SSL"),
    ],
)
def test_a_token_has_a_file_and_is_never_sent_in_the_clear(
    changed: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """OAUTHBEARER over a line that others hear is refused at the start."""
    settings = {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "OAUTHBEARER", **changed}
    for variable, value in settings.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit):
        load(UploaderSettings)
    assert says in capsys.readouterr().err


def test_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither in an error nor in the settings' own text."""
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "hunter2")
    monkeypatch.setenv("KAFKA_SASL_MECHANISM", "NONE")
    with pytest.raises(SystemExit):
        load(UploaderSettings)
    assert "hunter2" not in capsys.readouterr().err
    monkeypatch.delenv("KAFKA_SASL_MECHANISM")
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("KAFKA_SASL_USERNAME", "uploader")
    assert "hunter2" not in repr(load(UploaderSettings))


def test_every_setting_is_described() -> None:
    """`--help` and the README's table have a meaning for each variable."""
    assert all(field.description for field in UploaderSettings.model_fields.values())


def test_a_commit_clock_slower_than_the_watchdog_is_refused() -> None:
    """A healthy client that commits once a minute would be taken for a wedged one after ten seconds."""
    with pytest.raises(ValidationError, match=r"COMMIT_INTERVAL_S=60 plus 10 s must be less than STALLED_AFTER_S=60"):
        UploaderSettings(s3_bucket="bucket", commit_interval_s=60)
    assert UploaderSettings(s3_bucket="bucket", commit_interval_s=60, stalled_after_s=71)
