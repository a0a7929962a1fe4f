"""What a peer says of itself: bench/peers/<name>/peer.json, with its placeholders. Starts nothing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.processes import ROOT

FOLDER = ROOT / "bench" / "peers"


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer. `keeps_bytes`: objects hold exactly the payloads' bytes, so that checksums have to meet.

    Attributes:
        name: of its folder.
        title: for tables.
        roles: `end_to_end`, `ingest`, `uploader`.
        command: with placeholders, as are the two URLs and the environment.
        environment: beside AWS's own variables.
        ready_url: answers 200 once it serves; empty: there is none, it is ready when its first object is there.
        ingest_url: takes collections; empty for an uploader.
        keeps_bytes: see above.
        counted: its answer says how many payloads it accepted.

    """

    name: str
    title: str
    roles: frozenset[str]
    command: tuple[str, ...]
    environment: Mapping[str, str]
    ready_url: str
    ingest_url: str
    keeps_bytes: bool
    counted: bool

    def filled(self, values: Mapping[str, str]) -> "Peer":
        """The same with every `${NAME}` replaced."""
        return Peer(
            self.name,
            self.title,
            self.roles,
            tuple(fill(word, values) for word in self.command),
            {name: fill(text, values) for name, text in self.environment.items()},
            fill(self.ready_url, values),
            fill(self.ingest_url, values),
            self.keeps_bytes,
            self.counted,
        )


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with `${NAME}` replaced by its value; names that are not known stay."""
    for name, value in values.items():
        text = text.replace("${" + name + "}", value)
    return text


def read(folder: Path) -> Peer:
    """The peer of a folder."""
    found = json.loads((folder / "peer.json").read_text(encoding="utf-8"))
    return Peer(
        folder.name,
        found.get("title", folder.name),
        frozenset(found["roles"]),
        tuple(found["command"]),
        found.get("env", {}),
        found.get("ready_url", ""),
        found.get("ingest_url", ""),
        bool(found.get("keeps_bytes", False)),
        bool(found.get("counted", False)),
    )


def folders() -> list[Path]:
    """Of every peer that is there."""
    return sorted(path.parent for path in FOLDER.glob("*/peer.json"))
