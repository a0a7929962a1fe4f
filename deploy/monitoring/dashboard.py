"""The Grafana dashboard as code: `python -m deploy.monitoring.dashboard` writes dashboards/spillway.json.

Owns the layout and Grafana's JSON; what is asked stands in `panels.py`. All panels are of kinds that Grafana brings,
and ask one Prometheus that has the rules beside this file.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from deploy.monitoring.panels import ROWS, Panel

FILE = Path(__file__).parent / "dashboards/spillway.json"
COLUMNS = 24  # of Grafana's grid

Json = dict[str, object]

_HERE = 'namespace=~"$namespace", job=~"$job"'
_DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> Json:
    """The whole dashboard."""
    return {
        "uid": "spillway",
        "title": "Spillway",
        "description": "Read from the top: safe, how full, in and out, S3, errors, saturation.",
        "tags": ["spillway"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,  # one cross hair over all graphs: what happened at the same time
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_datasource(), *_variables()]},
        "panels": list(_panels()),
    }


def _datasource() -> Json:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1}


def _variables() -> Iterator[Json]:
    metrics = '__name__=~"spillway_ingest_in_flight_bytes|spillway_uploader_in_flight"'
    for name, matchers in (("namespace", metrics), ("job", f'{metrics}, namespace=~"$namespace"')):
        query = f"label_values({{{matchers}}}, {name})"
        yield {
            "name": name,
            "label": name,
            "type": "query",
            "datasource": _DATASOURCE,
            "query": {"query": query, "refId": name},
            "definition": query,
            "refresh": 2,  # with the time range, too: a namespace of last week is there when one looks at last week
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",  # also matches where there is no such label, as with Docker Compose
            "current": {"text": ["All"], "value": ["$__all"]},
        }


def _panels() -> Iterator[Json]:
    number, y = 0, 0
    for title, panels in ROWS:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
        }
        y += 1
        x = 0
        for panel in panels:
            if x + panel.width > COLUMNS:
                x, y = 0, y + panel.height
            number += 1
            yield _panel(panel, number) | {"gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height}}
            x += panel.width
        y += panels[-1].height


def _panel(panel: Panel, number: int) -> Json:
    defaults: Json = {
        "unit": panel.unit,
        "noValue": "no data",
        "color": {"mode": "thresholds" if panel.single else "palette-classic"},
        "thresholds": {
            "mode": "absolute",
            "steps": [{"color": colour, "value": value} for value, colour in panel.steps],
        },
    }
    if not panel.single:
        defaults["min"] = 0
        defaults["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 20 if panel.stacked else 0,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none"},
            "thresholdsStyle": {"mode": "dashed" if len(panel.steps) > 1 else "off"},
        }
    return {
        "id": number,
        "type": "stat" if panel.single else "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _DATASOURCE,
                "expr": query.replace("HERE", _HERE),
                "legendFormat": legend or "__auto",
                "instant": panel.single,
                "range": not panel.single,
            }
            for index, (query, legend) in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _figure_options() if panel.single else _graph_options(),
    }


def _figure_options() -> Json:
    return {
        "colorMode": "background",
        "graphMode": "none",
        "textMode": "value",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }


def _graph_options() -> Json:
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def rendered() -> str:
    """The text of the file."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(rendered(), "utf-8")
