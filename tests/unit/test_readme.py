"""README and docs say what the code does."""

import re
from pathlib import Path

import pytest

from tests.harness.readme import PAGES, README, ROOT, rendered


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_are_those_of_the_code(page: Path) -> None:
    """Mend a difference with `.venv/bin/python -m tests.harness.readme`."""
    assert page.read_text("utf-8") == rendered(page)


def test_the_file_map_names_files_that_exist() -> None:
    """Every path of the file map is there."""
    section = README.read_text("utf-8").split("## File map", 1)[1].split("\n## ", 1)[0]
    paths = re.findall(r"^    ([A-Za-z0-9_./-]+)", section, re.MULTILINE)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_links_to_files_lead_somewhere() -> None:
    """Relative links of every Markdown page in the tree."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    links = [
        (page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    ]
    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / Path(link)).exists()] == []
