"""The README's generated parts: `python -m tests.harness.readme` writes them, a test compares them.

Owns the settings table and the table of problem codes, made from the classes themselves.
"""

import sys
from pathlib import Path

from services.ingest.problems import Code
from services.ingest.settings import IngestSettings
from services.uploader.settings import UploaderSettings
from shared.kafka import KafkaSettings

README = Path(__file__).parents[2] / "README.md"


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


def codes_table() -> str:
    """A Markdown table of every problem code."""
    lines = ["| status | `code` | meaning | `retryable` | `outcome` |", "|---|---|---|---|---|"]
    for code in sorted(Code, key=lambda code: code.value.status):
        kind = code.value
        again = "yes" if kind.retryable else "no"
        lines.append(f"| {kind.status} | `{code.name.lower()}` | {kind.title} | {again} | {kind.outcome} |")
    return "\n".join(lines) + "\n"


def rendered(text: str) -> str:
    """The README's text with its generated parts as the code has them."""
    for name, table in (("settings", settings_table()), ("codes", codes_table())):
        head, rest = text.split(f"<!-- {name} -->\n", 1)
        tail = rest.split(f"<!-- /{name} -->", 1)[1]
        text = f"{head}<!-- {name} -->\n{table}<!-- /{name} -->{tail}"
    return text


if __name__ == "__main__":
    README.write_text(rendered(README.read_text("utf-8")), "utf-8")
    sys.exit(0)
