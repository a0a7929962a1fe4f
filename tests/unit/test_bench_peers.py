"""The peers' folders keep what the benchmark expects of them: what they say of themselves, how a build is skipped."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PEERS = sorted(path.parent for path in (ROOT / "bench" / "peers").glob("*/peer.json"))
PLACEHOLDERS = {"PORT", "S3_ENDPOINT", "S3_BUCKET", "KAFKA_BOOTSTRAP", "KAFKA_TOPIC", "KAFKA_GROUP_ID", "BUILD_DIR"}
ROLES = {"end_to_end", "ingest", "uploader"}

each_peer = pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)


@each_peer
def test_a_peer_says_what_it_is(peer: Path) -> None:
    """Its description has the benchmark's fields and placeholders, and no others."""
    text = (peer / "peer.json").read_text(encoding="utf-8")
    said = json.loads(text)
    assert said["name"] == peer.name
    assert said["roles"]
    assert set(said["roles"]) <= ROLES
    assert set(re.findall(r"\$\{(\w+)\}", text)) <= PLACEHOLDERS
    assert ("ready_url" in said) == ("ingest_url" in said) == (said["roles"] != ["uploader"])
    assert said["command"][0] == f"${{BUILD_DIR}}/{'go-seed' if peer.name == 'go-raw' else peer.name}"


@each_peer
def test_a_build_without_its_toolchain_is_skipped_with_one_line(peer: Path, tmp_path: Path) -> None:
    """Exit 77 and the reason on one line: the benchmark shows it instead of a figure."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("bash", "dirname", "readlink"):  # a machine with a shell and nothing to build with
        found = next(folder for folder in ("/usr/bin", "/bin") if Path(folder, name).exists())
        (commands / name).symlink_to(Path(found, name))
    built = tmp_path / "built"
    environment = {"PATH": str(commands), "BUILD_DIR": str(built), "PYTHON": "/nonexistent"}
    done = subprocess.run(
        [os.fspath(commands / "bash"), str(peer / "build")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 77, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "not found" in done.stderr or "no Python" in done.stderr
    assert not built.exists()


@each_peer
def test_a_peer_is_the_same_program_everywhere(peer: Path) -> None:
    """Exact versions, hashes where the toolchain knows them, and a build that ends where its own tests fail."""
    if (peer / "go.mod").exists():
        wanted = re.findall(r"^\t(\S+) (v\S+)", (peer / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
        sums = (peer / "go.sum").read_text(encoding="utf-8")
        assert wanted
        assert not [name for name, version in wanted if f"{name} {version} h1:" not in sums]
        build = (peer / "build").read_text(encoding="utf-8")
        assert "\ngo vet . >&2" in build  # on standard error: its last line is the reason why there is no figure
        assert "\ngo test . >&2" in build
    if (peer / "pom.xml").exists():
        versions = re.findall(r"<(?:camel\.)?version>([^<]+)<", (peer / "pom.xml").read_text(encoding="utf-8"))
        assert versions
        assert not [version for version in versions if not re.fullmatch(r"[0-9.]+|\$\{camel\.version\}", version)]
