"""Settings of ingest: coupled time-outs, and a message that names the variable."""

import pytest

from services.ingest.settings import IngestSettings
from shared.settings import load


def test_defaults_are_coherent() -> None:
    """The default time-outs pass their own check: request 8 s < deadline 10 s."""
    settings = IngestSettings()
    assert settings.kafka_produce_timeout_s < settings.http_deadline_s


def test_every_setting_is_described() -> None:
    """README's table is made of the descriptions."""
    assert [name for name, field in IngestSettings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"KAFKA_PRODUCE_TIMEOUT_S": "10"}, "KAFKA_PRODUCE_TIMEOUT_S"),
        ({"HTTP_DEADLINE_S": "8"}, "HTTP_DEADLINE_S"),
        ({"S3_FOLDER": "../other"}, "S3_FOLDER"),
        ({"MAX_BODY_BYTES": "many"}, "MAX_BODY_BYTES"),
        ({"MAX_IN_FLIGHT_BYTES": "1000"}, "MAX_IN_FLIGHT_BYTES"),
        ({"INGEST_PORT": "99999"}, "INGEST_PORT"),
        ({"KAFKA_AWAY_AFTER_S": "60"}, "KAFKA_AWAY_AFTER_S"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL"),
    ],
)
def test_a_bad_setting_stops_the_start_by_name(
    variables: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One clear line names the variable, and the exit code is not 0."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as left:
        load(IngestSettings)
    assert left.value.code
    assert named in capsys.readouterr().err
