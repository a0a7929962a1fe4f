"""The operator's pages (docs/operations) as HTML, from this process: in an outage, the wiki may be away as well.

Owns the reading and rendering of these pages. They are ours, and still no HTML in them is let through.
"""

import functools
import itertools
import re
from collections.abc import Sequence
from importlib.resources import files

from markdown_it import MarkdownIt
from markdown_it.token import Token

_PACKAGE = "docs.operations"
INDEX = "README"
_OWN = re.compile(r"(?:\./)?([A-Za-z0-9-]+)\.md(#.*)?")


def names() -> list[str]:
    """The pages there are, without `.md`."""
    return sorted(each.name.removesuffix(".md") for each in files(_PACKAGE).iterdir() if each.name.endswith(".md"))


def page(name: str) -> tuple[str, str] | None:
    """A page's title and its HTML; None: there is none of this name."""
    return _page(name) if name in names() else None


@functools.cache  # of pages that are there: whoever asks for others must not fill our memory with their names
def _page(name: str) -> tuple[str, str]:
    tokens = _markdown().parse((files(_PACKAGE) / f"{name}.md").read_text(encoding="utf-8"))
    title = _anchored(tokens)
    _relinked(tokens)
    return title, str(_markdown().renderer.render(tokens, _markdown().options, {}))


@functools.cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _anchored(tokens: Sequence[Token]) -> str:
    """Give each heading the id that links to it use; the first one's text."""
    title = ""
    for opening, inline in itertools.pairwise(tokens):
        if opening.type == "heading_open":
            title = title or inline.content.replace("`", "")
            kept = re.sub(r"[^\w\- ]", "", inline.content.lower())
            opening.attrSet("id", kept.replace(" ", "-"))
    return title


def _relinked(tokens: Sequence[Token]) -> None:
    """Links among these pages lead to pages here. Others lead to files that are not here: their text stays."""
    for token in tokens:
        for part, closing in _links(token.children or []):
            target = str(part.attrs.get("href", ""))
            if own := _OWN.fullmatch(target):
                part.attrSet("href", own.group(1) + (own.group(2) or ""))
            elif not target.startswith(("#", "https://")):
                part.tag = closing.tag = "span"
                part.attrs = {"title": target}


def _links(children: Sequence[Token]) -> list[tuple[Token, Token]]:
    opened = [each for each in children if each.type == "link_open"]
    closed = [each for each in children if each.type == "link_close"]
    return list(zip(opened, closed, strict=True))
