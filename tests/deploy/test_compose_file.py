"""docker-compose.yml and what it mounts, as they are written. Needs no engine; where docker is, it reads them, too."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.ingest.connections import FLUSH_S
from services.ingest.settings import IngestSettings
from services.uploader.cli import parse, topic_plan
from services.uploader.consumer import END_MARGIN_S
from services.uploader.settings import UploaderSettings
from services.uploader.topics import TopicPlan
from shared.kafka import KafkaSettings
from shared.settings import EnvironmentSettings
from tests.harness.compose import COMPOSE_FILE, UPLOADERS_MAX, docker
from tests.harness.engines import compose_missing
from tests.harness.manifests import workload, written
from tests.harness.processes import ROOT
from tests.harness.promtool import needs_promtool, promtool

DEPLOY = ROOT / "deploy/compose"
FILE: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
PROMETHEUS: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus.yml").read_text("utf-8"))
READS: dict[str, type[EnvironmentSettings]] = {
    "ingest": IngestSettings,
    "uploader": UploaderSettings,
    "topics": KafkaSettings,
}
ONCE = {"topics", "bucket"}
AWS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
"""Of the AWS SDK, and no settings of ours."""

every_service = pytest.mark.parametrize("name", SERVICES)


def _loaded(name: str, patch: pytest.MonkeyPatch) -> Any:
    """The settings as its process would read them; a bad or missing one raises."""
    for field in READS[name].model_fields:
        patch.delenv(field.upper(), raising=False)
    for variable, value in SERVICES[name]["environment"].items():
        patch.setenv(variable, value)
    return READS[name]()


def _seconds(text: str) -> int:
    assert text.endswith("s")
    return int(text[:-1])


def _unknown(name: str, environment: dict[str, str]) -> set[str]:
    known = {field.upper() for field in READS[name].model_fields} | (AWS if name == "uploader" else set())
    return environment.keys() - known


@pytest.mark.parametrize("name", READS)
def test_every_variable_is_a_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process reads each, and starts with them."""
    assert not _unknown(name, SERVICES[name]["environment"])
    _loaded(name, monkeypatch)


def test_a_variable_that_nobody_reads_is_found() -> None:
    """The check above can fail."""
    assert _unknown("uploader", {"S3_BUKET": "x", "S3_BUCKET": "x", "AWS_ACCESS_KEY_ID": "x"}) == {"S3_BUKET"}


def test_the_bucket_is_made_where_the_uploaders_look_for_it() -> None:
    """The same variables."""
    uploader, bucket = SERVICES["uploader"]["environment"], SERVICES["bucket"]["environment"]
    assert bucket.items() <= uploader.items()
    assert set(re.findall(r'environ\["(\w+)"\]', SERVICES["bucket"]["command"][0])) <= bucket.keys()


def test_the_topics_are_those_of_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `topics` plans by itself, for one broker; and no more uploaders than partitions have a page."""
    settings = _loaded("topics", monkeypatch)
    plan = topic_plan(parse(SERVICES["topics"]["command"]), settings.kafka_min_insync)
    assert plan == TopicPlan(replication_factor=1)
    assert plan.partitions == UPLOADERS_MAX
    first, last = re.findall(r":-(\d+)-(\d+)\}:8081$", SERVICES["uploader"]["ports"][0])[0]
    assert int(last) - int(first) + 1 == UPLOADERS_MAX
    (replicas,) = re.findall(r"^\$\{SPILLWAY_UPLOADERS:-(\d+)\}$", SERVICES["uploader"]["deploy"]["replicas"])
    assert 1 <= int(replicas) <= UPLOADERS_MAX


@every_service
def test_a_container_is_bounded(name: str) -> None:
    """No capability, none to be had, a root that is only read (but for the broker's), a log that ends somewhere."""
    one = SERVICES[name]
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert one.get("read_only", False) is (name != "kafka")
    assert one["logging"]["options"].keys() == {"max-size", "max-file"}
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "userns_mode", "devices"} & one.keys()
    for volume in one.get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            assert volume.endswith(":ro")
            assert (ROOT / source).exists()
        else:
            assert source in FILE["volumes"]
    assert one["restart"] == ("no" if name in ONCE else "unless-stopped")


@every_service
def test_ports_are_this_machines_own(name: str) -> None:
    """On 127.0.0.1, and each a variable, so that it can be another."""
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{SPILLWAY_\w+:-[\d-]+\}:\d+", port)
        assert re.findall(r"SPILLWAY_\w+", port)[0] in COMPOSE_FILE.read_text("utf-8").split("name:")[0]


def test_host_ports_do_not_meet() -> None:
    """None is another's, nor in the uploaders' range."""
    taken: list[int] = []
    for one in SERVICES.values():
        for port in one.get("ports", []):
            first, _, last = re.findall(r":-([\d-]+)\}", port)[0].partition("-")
            taken += range(int(first), int(last or first) + 1)
    assert len(taken) == len(set(taken))


@every_service
def test_an_image_is_a_version(name: str) -> None:
    """No `latest`; the broker and the S3 server are those of the dev overlay."""
    one = SERVICES[name]
    if "build" in one:
        tier = "ingest" if name == "ingest" else "uploader"
        assert one["image"] == f"spillway-{tier}:${{SPILLWAY_TAG:-dev}}"
        date = {"SOURCE_DATE_EPOCH": "${SOURCE_DATE_EPOCH:-315532800}"}
        assert one["build"] == {"context": ".", "dockerfile": f"services/{tier}/Dockerfile", "args": date}
        return
    assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", one["image"])
    if name in ("kafka", "s3"):
        assert one["image"] == workload(written("dev"), name).container["image"]


def test_the_broker_makes_no_topic_and_keeps_one_copy() -> None:
    """What a broker alone needs; and what it writes lies in the volume."""
    broker = SERVICES["kafka"]["environment"]
    assert broker["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    factors = {value for name, value in broker.items() if re.search("REPLICATION_FACTOR|MIN_ISR", name)}
    assert factors == {SERVICES["ingest"]["environment"]["KAFKA_MIN_INSYNC"]} == {"1"}
    assert SERVICES["kafka"]["volumes"] == [f"kafka:{broker['KAFKA_LOG_DIRS']}"]


def test_what_ends_is_waited_for_by_what_lasts() -> None:
    """`up --wait` takes a container that has ended for a failure unless a lasting service depends on its success."""
    waits = {
        other: need["condition"]
        for name in SERVICES.keys() - ONCE
        for other, need in dict(SERVICES[name].get("depends_on", {}) if name in READS else {}).items()
    }
    assert waits == dict.fromkeys(ONCE, "service_completed_successfully")
    for name in ONCE:
        assert {need["condition"] for need in SERVICES[name]["depends_on"].values()} == {"service_healthy"}
        assert SERVICES[name]["healthcheck"] == {"disable": True}


def test_docker_waits_until_a_process_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sums of docs/operations/rolling-restart.md and of services/uploader/consumer.py, and 10 s more."""
    ingest, uploader = _loaded("ingest", monkeypatch), _loaded("uploader", monkeypatch)
    needed_s = ingest.ingest_drain_delay_s + ingest.http_deadline_s + FLUSH_S
    assert _seconds(SERVICES["ingest"]["stop_grace_period"]) >= needed_s + 10
    needed_s = uploader.drain_timeout_s + END_MARGIN_S
    assert _seconds(SERVICES["uploader"]["stop_grace_period"]) >= needed_s + 10


@pytest.mark.parametrize(("name", "tier"), [("ingest", "INGEST"), ("uploader", "UPLOADER")])
def test_healthy_means_ready(name: str, tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the port that the process listens on."""
    port = getattr(_loaded(name, monkeypatch), f"{name}_ops_port")
    script = "/opt/spillway/ops_answers.py"
    assert SERVICES[name]["healthcheck"]["test"] == ["CMD", "python", "-I", "-S", script, tier, str(port), "/readyz"]
    assert any(published.endswith(f":{port}") for published in SERVICES[name]["ports"])


# -- Prometheus and Grafana, which stand behind a profile


def _mounts(name: str) -> Iterator[tuple[Path, str]]:
    for volume in SERVICES[name]["volumes"]:
        source, target = volume.split(":")[:2]
        if source.startswith("."):
            yield (ROOT / source).resolve(), target


def test_prometheus_finds_every_replica_and_every_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the service's name, at the ops port; with the labels that rules and dashboard go by."""
    jobs = {job["job_name"]: job for job in PROMETHEUS["scrape_configs"]}
    assert jobs.keys() == {"ingest", "uploader"}
    for name, job in jobs.items():
        port = getattr(_loaded(name, monkeypatch), f"{name}_ops_port")
        (found,) = job["dns_sd_configs"]
        assert (found["names"], found["type"], found["port"]) == ([name], "A", port)
        assert [one["target_label"] for one in job["relabel_configs"]] == ["namespace"]
    mounts = {target: source for source, target in _mounts("prometheus")}
    (rules,) = PROMETHEUS["rule_files"]
    assert mounts[str(Path(rules).parent)] == ROOT / "deploy/monitoring/rules"
    assert f"--config.file={next(t for t in mounts if t.endswith('.yml'))}" in SERVICES["prometheus"]["command"]


def test_grafana_has_the_dashboard_and_its_source() -> None:
    """Provisioned where Grafana looks, and the page that it opens with is there."""
    mounts = {target: source for source, target in _mounts("grafana")}
    (provider,) = yaml.safe_load((DEPLOY / "grafana/dashboards.yaml").read_text("utf-8"))["providers"]
    (source,) = yaml.safe_load((DEPLOY / "grafana/datasource.yaml").read_text("utf-8"))["datasources"]
    dashboards = mounts[provider["options"]["path"]]
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (dashboards / home.name).exists()
    assert str(home.parent) == provider["options"]["path"]
    assert source["url"] == "http://prometheus:9090"
    assert {str(Path(target).parent) for target in mounts if "provisioning" in target} == {
        "/etc/grafana/provisioning/datasources",
        "/etc/grafana/provisioning/dashboards",
    }


@needs_promtool
def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    """`promtool check config`, with the rules where they are here."""
    text = (DEPLOY / "prometheus.yml").read_text("utf-8")
    path = tmp_path / "prometheus.yml"
    path.write_text(text.replace("/etc/prometheus/rules", str(ROOT / "deploy/monitoring/rules")), "utf-8")
    promtool("check", "config", path)


@pytest.mark.skipif(compose_missing() is not None, reason=str(compose_missing()))
@pytest.mark.parametrize("profile", ["", "monitoring"])
def test_docker_takes_the_file(profile: str) -> None:
    """`docker compose config`, which needs no engine; the services of the profile are there with it alone."""
    arguments = ("--profile", profile) if profile else ()
    found = docker("compose", "--file", str(COMPOSE_FILE), *arguments, "config", "--services").split()
    behind = {name for name, one in SERVICES.items() if "profiles" in one}
    assert behind == {"prometheus", "grafana"}
    assert set(found) == (SERVICES.keys() if profile else SERVICES.keys() - behind)
