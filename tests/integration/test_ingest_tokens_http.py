"""Tokens from end to end: a real ingest, a file that changes under it, and what its clients see meanwhile."""

import hashlib
import json
import threading
from collections import Counter
from pathlib import Path

import pytest

from services.ingest.__main__ import main
from tests.conftest import MakeTopic
from tests.harness.http_client import Answer, request
from tests.harness.processes import Processes
from tests.harness.tiers import IngestTier, get, start_ingest
from tests.harness.waiting import until

SEEN_WITHIN_S = 20
"""The file is looked at every second."""


class Bench:
    """A topic, an ingest with a tokens file, and every secret that was ever sent to it."""

    def __init__(
        self, make_topic: MakeTopic, processes: Processes, path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.path = path
        self.secrets: list[str] = []
        self._capsys = capsys
        self.topic = make_topic(1)
        self._processes = processes
        self.tier: IngestTier

    def start(self, *, burst_s: float = 2) -> None:
        settings = {"INGEST_TOKENS_FILE": str(self.path), "TOKEN_BURST_S": str(burst_s), "LOG_LEVEL": "DEBUG"}
        self.tier = start_ingest(self._processes, self.topic, settings)
        self.tier.wait_ready()

    def make(self, *arguments: str) -> str:
        """Run `spillway-ingest token` on the file."""
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(["token", *arguments, "--file", str(self.path), "--output", "json"])
        assert end.value.code == 0
        token = json.loads(self._capsys.readouterr().out)["token"]
        assert isinstance(token, str)
        self.secrets.append(token)
        return token

    def edit(self, index: int, **fields: object) -> None:
        """Change one entry, as an editor would."""
        entries = json.loads(self.path.read_text())
        entries[index] |= fields
        self.path.write_text(json.dumps(entries))

    def post(self, secret: str | None, payload: str = "1", *, in_body: bool = False) -> Answer:
        envelope: dict[str, object] = {"version": "1", "data": [payload]}
        headers = {}
        if secret is not None and in_body:
            envelope["token"] = secret
        elif secret is not None:
            headers["Authorization"] = f"Bearer {secret}"
        return request(self.tier.collections_url, json.dumps(envelope).encode(), headers=headers)

    def until_told(self, secret: str, status: int) -> Answer:
        """Post until the answer has this status."""

        def told() -> Answer | None:
            answer = self.post(secret)
            return answer if answer.status == status else None

        answer = until(told, f"a {status}", deadline_s=SEEN_WITHIN_S)
        assert answer is not None
        return answer

    def assert_no_secret_was_told(self, *answers: Answer) -> None:
        """In the log at its most talkative, in an answer, in a record: no token, no hash beyond 8 digits."""
        said = self.tier.process.output()
        assert "serving" in said
        said += "".join(f"{answer.headers}{answer.body!r}" for answer in answers)
        said += "".join(f"{record.key!r}{record.value!r}{record.headers!r}" for record in self.topic.records())
        for secret in self.secrets:
            assert secret[:12] not in said
            assert hashlib.sha256(secret.encode()).hexdigest()[:9] not in said


@pytest.fixture
def bench(make_topic: MakeTopic, processes: Processes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(make_topic, processes, tmp_path / "tokens.json", capsys)


def test_who_is_let_in(bench: Bench) -> None:
    """In the head or in the body; 401 without a token or with a wrong one, 403 with a disabled one, each time as the
    contract says it, and never a 500; what is let in is stored in the folder of its entry, all else nowhere.
    """
    good, own, off = bench.make("good"), bench.make("own", "--folder", "a/b"), bench.make("off")
    bench.edit(2, disabled=True)
    bench.start()
    for secret, status, payload in ((good, 200, "1"), (own, 200, "2"), (off, 403, "no")):
        for in_body in (False, True):
            assert bench.post(secret, payload, in_body=in_body).status == status
    refused = [bench.post(off), bench.post(off, in_body=True), bench.post(None)]
    for wrong in ("spw_wrong", good[:-1], good + "x", "", "é", "\0"):
        refused.append(bench.post(wrong, "no", in_body=True))
        if wrong.isascii() and wrong.isprintable():
            refused.append(bench.post(wrong, "no"))
    assert Counter((answer.status, answer.document["code"]) for answer in refused) == Counter(
        {(403, "token_disabled"): 2, (401, "token_unknown"): len(refused) - 2}
    )
    assert bench.post("\ud83d", "no", in_body=True).status == 400  # no text at all, so no token
    for answer in refused:
        assert (answer.status == 401) == answer.headers.get("www-authenticate", "").startswith(
            'Bearer realm="spillway"'
        )
    stored = [(record.value, dict(record.headers)["spillway-folder"]) for record in bench.topic.records()]
    assert sorted(stored) == [(b'"1"', b"payloads")] * 2 + [(b'"2"', b"a/b")] * 2
    bench.assert_no_secret_was_told(*refused)


def test_a_token_is_changed_without_a_gap(bench: Bench) -> None:
    """Add a second token of the name, move the client, shut the old one: a client that sends all the time sees nothing
    but 200, and a bad file in between changes nothing.
    """
    old = bench.make("ci")
    bench.start()
    in_use, stop = [old], threading.Event()
    told: Counter[int] = Counter()

    def send_all_the_time() -> None:
        while not stop.is_set():
            told[bench.post(in_use[0]).status] += 1

    client = threading.Thread(target=send_all_the_time)
    client.start()
    try:
        new = bench.make("ci")
        bench.until_told(new, 200)
        good = bench.path.read_text()
        bench.path.write_text(good[:-9])
        until(lambda: bench.tier.metric("spillway_ingest_tokens_refused") == 1, "it to be refused", deadline_s=20)
        assert get(f"{bench.tier.ops_url}/readyz")[0] == 200
        assert {bench.post(old).status, bench.post(new).status} == {200}
        bench.path.write_text(good)
        until(lambda: bench.tier.metric("spillway_ingest_tokens_refused") == 0, "it to be taken", deadline_s=20)
        in_use[0] = new
        until(lambda: told[200] > 20, "the client to move", deadline_s=20)
    finally:
        stop.set()
        client.join()
    bench.edit(0, disabled=True)
    bench.until_told(old, 403)
    bench.path.write_text(json.dumps(json.loads(bench.path.read_text())[1:]))
    bench.until_told(old, 401)
    assert bench.post(new).status == 200
    assert set(told) == {200}
    bench.assert_no_secret_was_told()


def test_a_quota_is_kept_and_changed(bench: Bench) -> None:
    """One request each 100 s and 200 s of burst: two pass, the third is told how long to wait, both tokens of the
    client count as one, others go on, a larger rate applies without a restart, and none of it is written.
    """
    first, other = bench.make("ci", "--requests-per-s", "0.01"), bench.make("other")
    second = bench.make("ci")
    bench.start(burst_s=200)
    assert [bench.post(token).status for token in (first, second)] == [200, 200]
    refused = [bench.post(first), bench.post(second), bench.post(second, in_body=True)]
    for answer in refused:
        assert (answer.status, answer.document["code"]) == (429, "quota_spent")
        assert answer.document["outcome"] == "not_written"
        assert 60 <= int(answer.headers["retry-after"]) <= 100
    assert bench.post(other).status == 200
    assert len(bench.topic.records()) == 3
    for index in (0, 2):
        bench.edit(index, requests_per_s=1000)
    bench.until_told(first, 200)
    bench.assert_no_secret_was_told(*refused)
