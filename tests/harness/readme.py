"""The README's generated parts: `python -m tests.harness.readme` writes them, a test compares them.

Owns the settings table, made from the settings classes themselves.
"""

import re
import sys
from pathlib import Path

from services.ingest.settings import IngestSettings
from services.uploader.settings import UploaderSettings
from shared.kafka import KafkaSettings

README = Path(__file__).parents[2] / "README.md"
_TABLE = re.compile(r"(<!-- settings -->\n).*?(<!-- /settings -->)", re.DOTALL)


def settings_table() -> str:
    """A Markdown table of every environment variable, its default, its tier and its meaning."""
    tiers = {"ingest": IngestSettings.model_fields, "uploader": UploaderSettings.model_fields}
    lines = ["| variable | tier | default | meaning |", "|---|---|---|---|"]
    names = sorted(
        {name for fields in tiers.values() for name in fields}, key=lambda n: (n not in KafkaSettings.model_fields, n)
    )
    for name in names:
        found = {tier: fields[name] for tier, fields in tiers.items() if name in fields}
        field = next(iter(found.values()))
        default = "**required**" if field.is_required() else "" if field.default is None else f"`{field.default}`"
        tier = "both" if len(found) == len(tiers) else next(iter(found))
        lines.append(f"| `{name.upper()}` | {tier} | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def rendered(text: str) -> str:
    """The README's text with its generated parts as the code has them."""
    return _TABLE.sub(lambda found: found.group(1) + settings_table() + found.group(2), text)


if __name__ == "__main__":
    README.write_text(rendered(README.read_text("utf-8")), "utf-8")
    sys.exit(0)
