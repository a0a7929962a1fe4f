"""What we depend on, as far as it can be checked without the network: locks, the environment, reasons and licences.

Known vulnerabilities are a public service's to tell: `make audit` asks it, by hand or on a schedule, and CI does not.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.harness.processes import ROOT

LOCKS = {"requirements.lock": 40, "audit.lock": 40, "bench.lock": 1}
"""And how many pins each has at least."""
OURS, INSTALLER = "spillway", "pip"
ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "MPL-2.0",
    "PSF-2.0",
}
"""What the images may ship beside our Apache-2.0 without another obligation than the notice."""
_OLD_NAMES = {
    "Apache 2": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Dual License": "",  # python-dateutil's: its classifiers tell which
}
"""How packages name their licence that do not use SPDX yet."""


def _pins(lock: str) -> Iterator[tuple[Requirement, list[str]]]:
    """Each pin with the lines of its hashes."""
    text = (ROOT / lock).read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for entry in re.findall(r"^\S.*(?:\n[ \t]+.*)*", "\n".join(lines), re.MULTILINE):
        first, *hashes = (line.strip(" \\") for line in entry.splitlines())
        yield Requirement(first), hashes


@pytest.mark.parametrize("lock", LOCKS)
def test_each_pin_has_hashes_and_no_address(lock: str) -> None:
    """One exact version each, whose files are known by SHA-256; from which index they come is the user's to choose."""
    pins = list(_pins(lock))
    assert len(pins) >= LOCKS[lock]
    for pin, hashes in pins:
        assert re.fullmatch(r"==[^=*,]+", str(pin.specifier)), pin
        assert pin.url is None
        assert hashes, f"{pin} has no hash"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in hashes), pin
    text = (ROOT / lock).read_text("utf-8")
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", text)


def test_what_is_installed_is_the_lock() -> None:
    """Every pin that is for this Python is here in its version, and nothing else but pip and ourselves."""
    wanted = {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin, _ in _pins("requirements.lock")
        if pin.marker is None or pin.marker.evaluate()
    }
    found = {canonicalize_name(each.metadata["Name"]): each.version for each in metadata.distributions()}
    assert {name: version for name, version in found.items() if name not in (OURS, INSTALLER)} == wanted


def test_what_is_installed_fits_together() -> None:
    """`pip check` has nothing to say."""
    ran = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_each_direct_dependency_has_its_reason() -> None:
    """In `pyproject.toml`, on its own line; and all of them are in the lock."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    document = tomllib.loads(text)
    direct = [
        *document["project"]["dependencies"],
        *(each for extra in document["project"]["optional-dependencies"].values() for each in extra),
        *document["dependency-groups"]["audit"],
        *document["dependency-groups"]["bench"],
    ]
    for each in direct:
        lines = [line for line in text.splitlines() if line.lstrip().startswith(f'"{each}"')]
        assert lines, each
        assert all(re.search(r",\s+# \S", line) for line in lines), f"{each}: why?"
    locked = {canonicalize_name(pin.name) for lock in LOCKS for pin, _ in _pins(lock)}
    assert {canonicalize_name(Requirement(each).name) for each in direct} <= locked


def _shipped(extra: str) -> dict[str, metadata.Distribution]:
    """Everything that an image with this extra holds, ourselves left out."""
    found: dict[tuple[str, str], metadata.Distribution] = {}
    todo = [(OURS, extra)]
    while todo:
        name, of = todo.pop()
        if (name, of) in found:
            continue
        found[name, of] = metadata.distribution(name)
        for line in found[name, of].requires or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": of}):
                todo += [(canonicalize_name(needed.name), each) for each in ("", *needed.extras)]
    return {name: each for (name, _), each in found.items() if name != OURS}


def _licences(of: metadata.Distribution) -> set[str]:
    told = of.metadata
    names = re.split(r" (?:AND|OR|WITH) ", told["License-Expression"] or "")
    if names == [""]:
        classifiers = [each for each in told.get_all("Classifier") or [] if each.startswith("License ::")]
        names = [(told["License"] or "").strip(), *(each.rsplit(" :: ", 1)[-1] for each in classifiers)]
    return {_OLD_NAMES.get(name, name).replace("Python Software Foundation License", "PSF-2.0") for name in names} - {
        ""
    }


@pytest.mark.parametrize(("extra", "least"), [("ingest", 20), ("uploader", 30)])
def test_licences_of_what_ships(extra: str, least: int) -> None:
    """All that an image holds says its licence, and each is on the list."""
    shipped = _shipped(extra)
    assert len(shipped) >= least
    strange = {name: sorted(_licences(each) - ALLOWED) for name, each in shipped.items() if _licences(each) - ALLOWED}
    assert strange == {}
    assert [name for name, each in shipped.items() if not _licences(each)] == []
