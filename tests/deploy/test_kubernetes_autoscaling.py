"""components/autoscaling-keda: how many uploaders there are, by lag, and not while S3 is away."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from services.uploader.settings import UploaderSettings
from shared.telemetry import UploaderMetrics
from tests.harness import manifests
from tests.harness.deployments import needs_kustomize, secrets
from tests.harness.manifests import Json, component, named, of_kind

PROMTOOL = shutil.which("promtool")


def _replicas(scaled: Json, lag: float, hold: float) -> float:
    """What KEDA's formula comes to, before the HPA rounds it and keeps it within its bounds."""
    modifiers = scaled["spec"]["advanced"]["scalingModifiers"]
    condition, then, otherwise = re.split(r" \? | : ", modifiers["formula"])
    names = {"lag": lag, "hold": hold}
    chosen = then if eval(condition, {}, names) else otherwise  # noqa: S307 - our own file
    return float(eval(chosen, {}, names)) / float(modifiers["target"])  # noqa: S307


@pytest.mark.parametrize(
    ("lag", "hold", "replicas"),
    [
        (0, 0, 0),  # the minimum counts
        (45_000, 0, 4.5),
        (120_000, 0, 12),
        (120_000, 5, 5),  # S3 is away, five uploaders: five, whatever the lag
        (0, 5, 5),
    ],
)
def test_the_number_of_uploaders_follows_lag_and_stands_still_while_s3_is_away(
    lag: float, hold: float, replicas: float
) -> None:
    """A share of 10,000 each; the present number times 10,000 is the present number."""
    assert _replicas(named(component("autoscaling-keda"), "ScaledObject", "spillway-uploader"), lag, hold) == replicas


def test_the_triggers_of_keda_are_what_the_formula_counts_on() -> None:
    """The cap counts in the formula's divisor; no answer is no signal, and then the number stays."""
    scaled = named(component("autoscaling-keda"), "ScaledObject", "spillway-uploader")["spec"]
    lag, hold = scaled["triggers"]
    assert (lag["name"], lag["type"], hold["name"], hold["type"]) == ("lag", "kafka", "hold", "prometheus")
    assert lag["metadata"]["limitToPartitionsWithLag"] == lag["metadata"]["excludePersistentLag"] == "true"
    assert lag["useCachedMetrics"] is True  # or two looks within a commit's second take all partitions for stuck
    assert lag["metadata"]["lagThreshold"] == scaled["advanced"]["scalingModifiers"]["target"] == "10000"
    assert scaled["advanced"]["scalingModifiers"]["metricType"] == "AverageValue"  # `fallback` works with no other
    assert scaled["fallback"]["behavior"] == "currentReplicas"
    assert hold["metadata"]["ignoreNullValues"] == "false"
    fields = {name.upper() for name in UploaderSettings.model_fields}
    named_variables = {value for key, value in lag["metadata"].items() if key.endswith("FromEnv")}
    assert named_variables == {"KAFKA_BOOTSTRAP_SERVERS", "KAFKA_TOPIC", "KAFKA_GROUP_ID"} <= fields


def test_the_query_of_keda_asks_for_metrics_that_there_are() -> None:
    """By their names in shared/telemetry.py, in the namespace of the manifests."""
    registry = CollectorRegistry()
    metrics = UploaderMetrics(registry)
    metrics.s3_failing_since.labels(reason="timeout").set(1)
    known = {sample.name for family in registry.collect() for sample in family.samples}
    hold = named(component("autoscaling-keda"), "ScaledObject", "spillway-uploader")["spec"]["triggers"][1]
    query = hold["metadata"]["query"]
    asked = set(re.findall(r"spillway_\w+", query))
    assert asked == {"spillway_uploader_in_flight_limit", "spillway_uploader_s3_failing_since_timestamp_seconds"}
    assert asked <= known
    assert set(re.findall(r'namespace="([^"]+)"', query)) == {"spillway"}
    assert query.count("(") == query.count(")")


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool on PATH (Debian: apt-get install prometheus)")
def test_hold_is_the_number_of_uploaders_while_half_of_them_say_that_s3_is_away(tmp_path: Path) -> None:
    """By Prometheus itself. Five uploaders, and at each minute how many of them fail.

    minute   0  1  2  3  4  5  6
    failing  0  2  2  3  0  0  0   two of five are fewer than half, also when one of them has had two reasons
    hold     0  0  0  5  5  5  0   it holds for two minutes more
    """
    hold = named(component("autoscaling-keda"), "ScaledObject", "spillway-uploader")["spec"]["triggers"][1]
    failing = [
        ("spillway", 0, "slow_down", "_ 1"),
        ("spillway", 0, "timeout", "_ _ 1 1"),
        ("spillway", 1, "slow_down", "_ 1 1 1"),
        ("spillway", 2, "slow_down", "_ _ _ 1"),
        *(("other", pod, "slow_down", "1x6") for pod in range(5)),  # another Spillway's, which is none of ours
    ]
    series = [
        {"series": f'spillway_uploader_in_flight_limit{{namespace="{namespace}", pod="{pod}"}}', "values": "64x6"}
        for namespace in ("spillway", "other")
        for pod in range(5)
    ] + [
        {
            "series": "spillway_uploader_s3_failing_since_timestamp_seconds"
            f'{{namespace="{namespace}", pod="{pod}", reason="{reason}"}}',
            "values": values,
        }
        for namespace, pod, reason, values in failing
    ]
    expected = {"0m": 0, "1m": 0, "2m": 0, "3m": 5, "4m": 5, "4m59s": 5, "6m": 0}
    tests = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": series,
                "promql_expr_test": [
                    {
                        "expr": hold["metadata"]["query"],
                        "eval_time": when,
                        "exp_samples": [{"labels": "{}", "value": value}],
                    }
                    for when, value in expected.items()
                ]
                # No uploader is scraped any more: no answer, and so KEDA's `fallback`.
                + [{"expr": hold["metadata"]["query"], "eval_time": "20m", "exp_samples": []}],
            }
        ],
    }
    (tmp_path / "rules.yaml").write_text("groups: []\n", "utf-8")
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests), "utf-8")
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", "tests.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_kustomize
def test_keda_takes_the_place_of_the_hpa() -> None:
    """Two would fight over one Deployment; ingest keeps its own."""
    objects = manifests.built("production", ("monitoring", "autoscaling-keda"))
    assert [one["metadata"]["name"] for one in of_kind(objects, "HorizontalPodAutoscaler")] == ["spillway-ingest"]
    used = named(objects, "ScaledObject", "spillway-uploader")["spec"]["triggers"][0]["authenticationRef"]["name"]
    keys = named(objects, "TriggerAuthentication", used)["spec"]["secretTargetRef"]
    assert all(one["key"] in secrets()[one["name"]] for one in keys)


@needs_kustomize
def test_keda_asks_a_strimzi_cluster_with_the_uploaders_certificate() -> None:
    """No SASL is left, and TLS stays."""
    objects = manifests.built("production", ("monitoring", "autoscaling-keda", "strimzi", "irsa"))
    metadata = named(objects, "ScaledObject", "spillway-uploader")["spec"]["triggers"][0]["metadata"]
    assert "sasl" not in metadata
    assert metadata["tls"] == "enable"
    keys = named(objects, "TriggerAuthentication", "spillway-uploader-kafka")["spec"]["secretTargetRef"]
    assert {one["parameter"] for one in keys} == {"ca", "cert", "key"}
    assert {one["name"] for one in keys} == {"main-cluster-ca-cert", "spillway-uploader-kafka"}
