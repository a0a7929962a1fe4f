"""The generated parts of README and docs: `python -m tests.harness.readme` writes them, a test compares them.

Owns the tables of settings, problem codes and metrics, made from the classes themselves.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase

from services.ingest.problems import Code
from services.ingest.settings import IngestSettings
from services.uploader.jobs.settings import JobSettings
from services.uploader.settings import UploaderSettings
from shared.kafka import KafkaSettings
from shared.telemetry import IngestMetrics, PutsCollector, UploaderMetrics, WorkerMetrics

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def settings_table() -> str:
    """A Markdown table of every environment variable, its default, its tier and its meaning."""
    own = {name: field for name, field in JobSettings.model_fields.items() if name not in UploaderSettings.model_fields}
    tiers = {"ingest": IngestSettings.model_fields, "uploader": UploaderSettings.model_fields, "jobs": own}
    lines = ["| variable | tier | default | meaning |", "|---|---|---|---|"]
    names = sorted(
        {name for fields in tiers.values() for name in fields}, key=lambda n: (n not in KafkaSettings.model_fields, n)
    )
    for name in names:
        found = {tier: fields[name] for tier, fields in tiers.items() if name in fields}
        field = next(iter(found.values()))
        default = "**required**" if field.is_required() else "" if field.default is None else f"`{field.default}`"
        tier = "both" if {"ingest", "uploader"} <= found.keys() else next(iter(found))
        lines.append(f"| `{name.upper()}` | {tier} | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def codes_table() -> str:
    """A Markdown table of every problem code."""
    lines = ["| status | `code` | meaning | `retryable` | `outcome` |", "|---|---|---|---|---|"]
    for code in sorted(Code, key=lambda code: code.value.status):
        kind = code.value
        again = "yes" if kind.retryable else "no"
        lines.append(f"| {kind.status} | `{code.name.lower()}` | {kind.title} | {again} | {kind.outcome} |")
    return "\n".join(lines) + "\n"


def families(metrics: IngestMetrics | UploaderMetrics) -> Iterator[tuple[Metric, Sequence[str]]]:
    """Every metric of one tier, and the names of its labels."""
    for metric in vars(metrics).values():
        if isinstance(metric, PutsCollector):  # it has a sample of each label from the start
            for family in metric.collect():
                yield family, sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        else:
            assert isinstance(metric, MetricWrapperBase)
            (family,) = metric.describe()
            yield family, metric._labelnames


def metrics_table(metrics: IngestMetrics | UploaderMetrics) -> str:
    """A Markdown table of every metric of one tier, by name as `/metrics` shows it."""
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for family, names in sorted(families(metrics), key=lambda each: each[0].name):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(f"`{label}`" for label in names)
        lines.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(lines) + "\n"


TABLES: Mapping[str, Callable[[], str]] = {
    "settings": settings_table,
    "codes": codes_table,
    "ingest-metrics": lambda: metrics_table(IngestMetrics(CollectorRegistry())),
    "worker-metrics": lambda: metrics_table(WorkerMetrics(CollectorRegistry())),
    "uploader-metrics": lambda: metrics_table(UploaderMetrics(CollectorRegistry())),
}
PAGES: Mapping[Path, tuple[str, ...]] = {
    README: ("settings", "codes"),
    ROOT / "docs/operations/metrics.md": ("ingest-metrics", "worker-metrics", "uploader-metrics"),
}


def rendered(page: Path) -> str:
    """The page's text with its generated parts as the code has them."""
    text = page.read_text("utf-8")
    for name in PAGES[page]:
        head, rest = text.split(f"<!-- {name} -->\n", 1)
        tail = rest.split(f"<!-- /{name} -->", 1)[1]
        text = f"{head}<!-- {name} -->\n{TABLES[name]()}<!-- /{name} -->{tail}"
    return text


if __name__ == "__main__":
    for each in PAGES:
        each.write_text(rendered(each), "utf-8")
    sys.exit(0)
