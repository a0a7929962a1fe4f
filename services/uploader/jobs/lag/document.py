"""A look at the pipeline as a JSON document: of `lag --output json`, and of the status page. Decides nothing."""

import math

from services.uploader.jobs.bounds import iso
from services.uploader.jobs.lag.view import PipelineView, Standing


def document(view: PipelineView) -> dict[str, object]:
    """The JSON document. Times in seconds; null: unknown, but for `retention_ms`, where it is: for ever."""
    look = view.look
    return {
        "at": iso(look.at_ms),
        "topic": look.topic,
        "topic_id": look.topic_id,
        "retention_ms": look.retention_ms,
        "retention_by_size": look.by_size,
        "group": look.group.group_id,
        "state": look.group.state,
        "members": [
            {
                "member_id": member.member_id,
                "client_id": member.client_id,
                "host": member.host,
                "partitions": list(member.partitions),
            }
            for member in look.group.members
        ],
        "partitions": [
            {
                "partition": each.partition,
                "begin": each.begin,
                "committed": each.committed,
                "committed_for": each.gone_id or look.topic_id,
                "end": each.end,
                **_numbers(standing),
            }
            for each, standing in zip(look.partitions, view.standings, strict=True)
        ],
        "leaderless": list(look.leaderless),
        "total": _numbers(view.total),
        "warnings": list(view.warnings),
    }


def _numbers(standing: Standing) -> dict[str, object]:
    left_s = standing.retention_left_s
    return {
        "lag_records": standing.lag_records,
        "lag_seconds": _rounded(standing.lag_s),
        "retention_left_seconds": None if left_s == math.inf else _rounded(left_s),  # JSON has no infinity
        "committed_per_second": _rounded(standing.committed_per_s),
        "arriving_per_second": _rounded(standing.arriving_per_s),
        "drain": standing.drain.pace.value,
        "drain_seconds": _rounded(standing.drain.seconds),
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)
