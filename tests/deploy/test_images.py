"""The images of both tiers: what they are made of, by the files; what they are and do, where an engine can build."""

import json
import re
import tomllib
import uuid
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from services.ingest.settings import IngestSettings
from services.uploader.settings import UploaderSettings
from tests.harness.compose import TIERS, Stack, build, docker, inspect, needs_docker
from tests.harness.processes import ROOT
from tests.harness.waiting import until

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PORTS = {
    "ingest": IngestSettings.model_fields["ingest_ops_port"].default,
    "uploader": UploaderSettings.model_fields["uploader_ops_port"].default,
}
BUILT_S = 900

every_tier = pytest.mark.parametrize("tier", TIERS)


def dockerfile(tier: str) -> str:
    return (ROOT / f"services/{tier}/Dockerfile").read_text("utf-8")


# -- the locks


def _locked(path: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """Version and hashes by name."""
    found = re.findall(r"^([\w.-]+)==(\S+)[^\\\n]*((?:\\\n +--hash=\S+ ?)+)", path.read_text("utf-8"), re.MULTILINE)
    return {name: (version, frozenset(re.findall(r"--hash=(\S+)", hashes))) for name, version, hashes in found}


WHOLE = _locked(ROOT / "requirements.lock")
PARTS = {
    **{tier: _locked(ROOT / f"services/{tier}/requirements.lock") for tier in TIERS},
    "build": _locked(ROOT / "deploy/images/build.lock"),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_the_lock_says_what_the_lock_says(part: str) -> None:
    """The same versions with the same hashes: what the tests ran with is what the image has. Mend with `make lock`."""
    assert PARTS[part]
    assert PARTS[part].items() <= WHOLE.items()


def _needed(extra: str, *, everywhere: bool) -> set[str]:
    """Names that the project needs with an extra: of this Python on this system, or of any, as far as known."""
    needed: set[str] = set()
    left = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"].get(extra, [])]
    while left:
        one = left.pop()
        name = canonicalize_name(one.name)
        if name in needed or (one.marker and not everywhere and not one.marker.evaluate({"extra": ""})):
            continue
        needed.add(name)
        try:
            found = [Requirement(text) for text in metadata.requires(name) or []]
        except metadata.PackageNotFoundError:
            continue  # of another system
        for more in found:
            wanted = [e for e in ("", *one.extras) if not more.marker or more.marker.evaluate({"extra": e})]
            conditional = more.marker and "extra" not in str(more.marker)
            if wanted or (everywhere and conditional):
                left.append(Requirement(f"{more.name}[{','.join(more.extras)}]" if more.extras else more.name))
    return needed


@every_tier
def test_a_tiers_part_is_what_the_tier_needs(tier: str) -> None:
    """All of it, or pip refuses to install; and no more, or the image carries what nobody imports."""
    names = set(PARTS[tier])
    assert _needed(tier, everywhere=False) <= names
    assert names <= _needed(tier, everywhere=True)
    other = {"ingest": {"aiobotocore", "rich"}, "uploader": {"fastapi", "msgspec"}}[tier]
    assert not other & names


@pytest.mark.parametrize("path", ["services/ingest", "services/uploader", "deploy/images", "deploy/compose"])
def test_no_index_is_named(path: str) -> None:
    """Where packages come from is pip's own setting: a mirror, an air-gapped index, the public one."""
    for file in (ROOT / path).rglob("*"):
        if file.is_file() and file.suffix != ".pyc":
            text = file.read_text("utf-8")
            assert not re.search(r"--(extra-)?index-url|--trusted-host|https?://\S*/simple", text), file


# -- the Dockerfiles


def test_the_dockerfiles_are_alike_but_for_the_tier() -> None:
    """Whoever mends one mends both."""
    other = {"ingest": "uploader", "uploader": "ingest", "INGEST": "UPLOADER", "UPLOADER": "INGEST"}

    def bare(tier: str) -> str:
        text = dockerfile(tier) if tier == "ingest" else re.sub(r"\nCMD .*\n$", "\n", dockerfile(tier))
        if tier == "uploader":
            text = text.replace("COPY docs/operations docs/operations\n", "")  # served on its ops port
            text = re.sub("|".join(other), lambda found: other[found[0]], text)
        text = re.sub(r"description=.*|^EXPOSE .*|tier [12]", "…", text, flags=re.MULTILINE)
        return text.replace(f'"{PORTS[tier]}"', '"port"')

    assert bare("ingest") == bare("uploader")


@every_tier
def test_one_argument_says_which_base(tier: str) -> None:
    """Every stage is of `PYTHON_IMAGE` or of a stage: with another one the whole image is another."""
    text = dockerfile(tier)
    assert len(re.findall(r"^ARG PYTHON_IMAGE=", text, re.MULTILINE)) == 1
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${PYTHON_IMAGE}", "packages", "${PYTHON_IMAGE}"]
    assert "# syntax=" not in text  # a frontend that every build would fetch


@every_tier
def test_the_version_is_the_projects(tier: str) -> None:
    """The label's, unless the builder says another."""
    assert f"ARG VERSION={PROJECT['version']} " in dockerfile(tier)


# -- the images


@pytest.fixture(scope="module")
def tag() -> Iterator[str]:
    """A tag of this file's own; its images go with it."""
    made = f"test-{uuid.uuid4().hex[:8]}"
    yield made
    for name in docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split():
        if name.endswith((f":{made}", f":{made}-again")):
            docker("image", "rm", name)


@pytest.fixture
def image(tag: str, tier: str) -> str:
    """The tier's image, of this checkout; built once, then found in the builder's cache."""
    return build(tier, tag, "--build-arg", "SOURCE_DATE_EPOCH=1700000000", "--build-arg", "REVISION=abc")


@pytest.fixture
def container() -> Iterator[list[str]]:
    """Names of containers to be removed."""
    names: list[str] = []
    yield names
    if names:
        docker("rm", "--force", *names)


@pytest.mark.docker
@needs_docker
@pytest.mark.timeout(BUILT_S)
@every_tier
def test_the_image_says_what_it_is(tier: str, image: str) -> None:
    """A user that is a number, commands that no shell reads, labels, and no date but the one that was given."""
    facts = inspect(image)
    config = facts["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == [f"spillway-{tier}"]
    assert config["Cmd"] == {"ingest": None, "uploader": ["run"]}[tier]
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert {f"{PORTS[tier]}/tcp"} <= config["ExposedPorts"].keys()
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert (labels["title"], labels["licenses"], labels["revision"]) == (f"spillway-{tier}", PROJECT["license"], "abc")
    assert labels["version"] == PROJECT["version"]
    assert labels["base.name"] == re.findall(r"^ARG PYTHON_IMAGE=(.+)$", dockerfile(tier), re.MULTILINE)[0]
    assert facts["Created"] == "2023-11-14T22:13:20Z"


@pytest.mark.docker
@needs_docker
@pytest.mark.timeout(BUILT_S)
@every_tier
def test_it_holds_its_lock_and_its_tier(tier: str, image: str) -> None:
    """The packages of its part of the lock that this system needs, and us; neither the other tier nor pip."""
    program = """
import importlib.metadata as m, importlib.util as u, json, pathlib
print(json.dumps({
    "packages": {d.name.lower().replace("_", "-").replace(".", "-"): d.version for d in m.distributions()},
    "tiers": [tier for tier in ("ingest", "uploader") if u.find_spec("services." + tier)],
    "sources": sorted(str(p) for p in pathlib.Path("/opt/spillway").rglob("*.c")),
}))"""
    found = json.loads(docker("run", "--rm", "--read-only", "--entrypoint", "python", image, "-c", program))
    ours = found["packages"].pop("spillway")
    assert ours == PROJECT["version"]
    assert found["packages"].items() <= {name: version for name, (version, _) in PARTS[tier].items()}.items()
    assert _needed(tier, everywhere=False) - {"backports-zstd", "async-timeout"} <= found["packages"].keys()
    assert (found["tiers"], found["sources"]) == ([tier], [])


@pytest.mark.docker
@needs_docker
@pytest.mark.timeout(BUILT_S)
@every_tier
def test_a_build_without_a_cache_gives_the_same_image(tier: str, image: str, tag: str) -> None:
    """Every byte, time and mode of the layers, and the configuration: the id is the sum of all that."""
    options = ("--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", "--build-arg", "REVISION=abc")
    again = inspect(build(tier, f"{tag}-again", *options))
    assert again["RootFS"]["Layers"] == inspect(image)["RootFS"]["Layers"]
    assert again["Id"] == inspect(image)["Id"]


@pytest.mark.docker
@needs_docker
@pytest.mark.timeout(BUILT_S)
@every_tier
@pytest.mark.parametrize("host", ["", "127.0.0.2"])
def test_it_is_healthy_without_a_shell_and_ends_at_sigterm(
    tier: str, host: str, image: str, container: list[str]
) -> None:
    """A root that is only read, no shell in it, another ops port and address, no Kafka anywhere: it is
    alive, which is all that HEALTHCHECK asks. SIGTERM ends it with 0.
    """
    name = f"{Stack().project}-{tier}"
    container.append(name)
    variables = {
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        f"{tier.upper()}_OPS_PORT": "9999",
        f"{tier.upper()}_OPS_HOST": host,
        "INGEST_DRAIN_DELAY_S": "0",
        "S3_BUCKET": "bucket",
        "S3_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
    }
    options = [part for variable in variables.items() for part in ("--env", "=".join(variable))]
    shells = docker("run", "--rm", "--entrypoint", "python", image, "-c", _SHELLS).split()
    assert shells
    options += [part for shell in shells for part in ("--volume", f"/dev/null:{shell}:ro")]
    hardened = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    docker("run", "--detach", "--name", name, "--health-interval", "1s", *hardened, *options, image)
    until(
        lambda: inspect(name)["State"]["Health"]["Status"] == "healthy",
        f"{name} to be healthy",
        deadline_s=60,
        every_s=0.5,
    )
    last = inspect(name)["State"]["Health"]["Log"][-1]
    assert last["Output"].strip() == "/livez: 200"
    docker("stop", "--time", "30", name)
    state = inspect(name)["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False), docker("logs", name)


_SHELLS = "import glob, os; print(*{os.path.realpath(p) for p in glob.glob('/bin/*sh') + glob.glob('/usr/bin/*sh')})"


@pytest.mark.docker
@needs_docker
@pytest.mark.timeout(BUILT_S)
@pytest.mark.parametrize("tier", ["uploader"])
def test_s3_and_credentials_are_still_known_to_the_image(image: str) -> None:
    """The descriptions of other services were left out of it; those that credentials come from were not."""
    program = """
import botocore.session
session = botocore.session.Session()
print(*session.get_available_services())
for name in session.get_available_services():
    session.create_client(name, "eu-west-1", aws_access_key_id="any", aws_secret_access_key="any")
print(session.create_client("s3", "eu-west-1", aws_access_key_id="a", aws_secret_access_key="b").meta.endpoint_url)
"""
    told = docker("run", "--rm", "--read-only", "--entrypoint", "python", image, "-c", program).splitlines()
    assert told == ["s3 signin sso sso-oidc sts", "https://s3.eu-west-1.amazonaws.com"]


@pytest.mark.docker
@needs_docker
@pytest.mark.timeout(BUILT_S)
@pytest.mark.parametrize("tier", ["uploader"])
def test_every_command_of_the_image_starts(image: str) -> None:
    """Arguments take the place of `run`: the jobs of Kubernetes and of `docker run` are the same image."""
    for command in ("run", "topics", "replay", "verify", "redrive", "dead-letters", "lag"):
        assert f"spillway-uploader {command}" in docker("run", "--rm", "--read-only", image, command, "--help")
