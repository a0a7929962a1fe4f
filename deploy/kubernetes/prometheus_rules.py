"""`python -m deploy.kubernetes.prometheus_rules`: the alert rules as the Prometheus operator takes them.

The rules of deploy/monitoring/rules are Prometheus's own files, which promtool tests; kustomize cannot wrap a file into
an object. So this writes one PrometheusRule a file, text for text. A test says when it has to be run again.
"""

from pathlib import Path
from textwrap import indent

DIRECTORY = Path(__file__).parent
RULES = DIRECTORY.parent / "monitoring/rules"
WRITTEN = DIRECTORY / "components/monitoring/prometheus-rules.yaml"

_OBJECT = """\
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: spillway-{name}
spec:
"""


def prometheus_rules() -> str:
    """The text of `prometheus-rules.yaml`: an object for each file of rules, in the order of their names."""
    head = "# Written by `python -m deploy.kubernetes.prometheus_rules` from deploy/monitoring/rules: change those.\n"
    return head + "".join(
        _OBJECT.format(name=path.stem) + indent(path.read_text("utf-8"), "  ") for path in sorted(RULES.glob("*.yaml"))
    )


if __name__ == "__main__":
    WRITTEN.write_text(prometheus_rules(), "utf-8")
