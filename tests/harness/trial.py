"""One fault after another on one running pipeline, each with load on, each judged before the next one begins.

Owns the order (load, fault, heal, load, settle, judge) and that a failure names its fault. Knows no fault; tests do.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.fakes.script import Injection
from tests.harness.load import Load
from tests.harness.oracle import Answers, Verdict
from tests.harness.pipeline import GROWTH_MAX_BYTES, Pipeline
from tests.harness.waiting import until


class Trial:
    """A pipeline with one ingest and one uploader that run from the first fault to the last, never restarted.

    Attributes:
        answers: what clients were told since the start; every judgement is over all of it.
        verdict: the last judgement.

    """

    def __init__(self, pipeline: Pipeline, settings: Mapping[str, str] | None = None) -> None:
        self.pipeline = pipeline
        self.answers = Answers()
        self.verdict: Verdict | None = None
        self.ingest, self.uploader = pipeline.ready(settings)

    @contextmanager
    def under_load(
        self, fault: str, *, per_s: float = 40, size: int = 200, growth_max_bytes: int = GROWTH_MAX_BYTES
    ) -> Iterator[Load]:
        """Load on, and objects arriving; the body breaks and heals; then all must drain, and the oracle judges.

        Raises:
            AssertionError: begins with `fault`.

        """
        shelf = self.pipeline.shelf
        try:
            with Load(self.ingest.collections_url, per_s=per_s, size=size, answers=self.answers) as load:
                written = shelf.writes
                until(lambda: shelf.writes > written + 20, "objects before the fault", deadline_s=20)
                yield load
                accepted = load.accepted
                until(lambda: load.accepted > accepted + 50, "load after the fault", deadline_s=20)
                load.stop()
            self.verdict = self.pipeline.settle(self.answers, growth_max_bytes=growth_max_bytes)
            assert set(self.answers.statuses) == {200}, f"clients were told {dict(self.answers.statuses)}"
            codes = self.ingest.process.returncode, self.uploader.process.returncode
            assert codes == (None, None), f"a tier ended: exit codes {codes}"
        except AssertionError as error:
            raise AssertionError(f"{fault}: {error}") from error

    def endure(self, load: Load, lasts_s: float, *injections: Injection) -> None:
        """Let the fault last; each injection must strike, and ingest must go on taking payloads.

        Raises:
            AssertionError: one did not strike, or clients were kept waiting.

        """
        accepted = load.accepted
        end_s = time.monotonic() + lasts_s
        until(
            lambda: time.monotonic() >= end_s and all(injection.hits for injection in injections),
            f"{lasts_s} s of the fault, and each of {len(injections)} to strike",
            deadline_s=lasts_s + 20,
        )
        assert load.accepted > accepted, "nothing was accepted during the fault"
