"""What was refused, counted and told in the log: every one counted, of the log lines a bounded number.

While Kafka is away every request is refused; a line for each would bury what the operator needs to read.
"""

import logging

from services.ingest.problems import Code, Problem
from shared.telemetry import IngestMetrics

logger = logging.getLogger("spillway.ingest.refusals")

LINES_MAX = 10
"""Lines of one code in one PERIOD_S."""
PERIOD_S = 10.0

_SERVER_ERROR = 500


class Refusals:
    """Counts and log lines, by code."""

    def __init__(self, metrics: IngestMetrics) -> None:
        self._metrics = metrics
        self._periods: dict[Code, _Period] = {}
        for code in Code:  # from 0 on; HTTP_ERROR also comes with statuses of the framework's, born with their first
            metrics.requests.labels(str(code.value.status), code.name.lower())

    def tell(self, problem: Problem, request_id: str, now_s: float) -> None:
        """Count one refusal and log it, unless its code has had its lines.

        Args:
            problem: as the client is told it; its detail holds no token and no payload.
            request_id: of the request.
            now_s: a clock that never goes back.

        """
        self._metrics.requests.labels(str(problem.status_code), problem.label).inc()
        period = self._periods.get(problem.code)
        if period is None or now_s - period.began_s >= PERIOD_S:
            period, last = _Period(now_s), period
            self._periods[problem.code] = period
            if last is not None and last.refused > LINES_MAX:
                logger.info("refused more", extra={"code": problem.label, "not_logged": last.refused - LINES_MAX})
        period.refused += 1
        if period.refused > LINES_MAX:
            return
        level = logging.WARNING if problem.status_code >= _SERVER_ERROR else logging.INFO
        logger.log(
            level,
            "refused",
            extra={
                "request_id": request_id,
                "status": problem.status_code,
                "code": problem.label,
                "detail": problem.detail,
            },
        )


class _Period:
    def __init__(self, began_s: float) -> None:
        self.began_s = began_s
        self.refused = 0
