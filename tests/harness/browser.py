"""A real Chromium without a window, driven by Playwright, for tests of what a person sees.

Owns where the browser is found, the thread that drives it (a test's own thread must stay free of event loops), and what
counts as a fault of a page: an error in its console, a request that went elsewhere or was refused by its policy.
Playwright's own browsers are not used: nothing is downloaded.
"""

import asyncio
import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

from playwright.async_api import BrowserContext, Page, async_playwright, expect

T = TypeVar("T")

VARIABLE = "SPILLWAY_TEST_CHROMIUM"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

PHONE, DESKTOP = (360, 740), (1280, 900)
"""Widths and heights in pixels."""

_DEADLINE_S = 60
Do = Callable[[Coroutine[Any, Any, T]], T]


def chromium() -> str | None:
    """The path of a Chromium: the variable's, else the first on PATH; None: there is none."""
    return os.environ.get(VARIABLE) or next((found for name in _NAMES if (found := shutil.which(name))), None)


class Tab:
    """A page that is open, and what went wrong in it."""

    def __init__(self, do: Do[Any], page: Page, home: str) -> None:
        self._do = do
        self._page = page
        self._home = home
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("console", lambda said: self.faults.append(said.text) if said.type in {"error", "warning"} else None)
        page.on("request", lambda asked: self._went(asked.url))

    def _went(self, url: str) -> None:
        if urlsplit(url).netloc not in {self._home, ""}:
            self.faults.append(f"asked elsewhere: {url}")

    def sees(self, selector: str, text: str, *, within_s: float) -> None:
        """Wait until the element's text contains `text`.

        Raises:
            AssertionError: it did not come in time; shows what was there.

        """
        self._do(expect(self._page.locator(selector)).to_contain_text(text, timeout=within_s * 1000))

    def counts(self, selector: str, number: int, *, within_s: float) -> None:
        """Wait until there are so many of an element.

        Raises:
            AssertionError: there were not in time.

        """
        self._do(expect(self._page.locator(selector)).to_have_count(number, timeout=within_s * 1000))

    def text(self, selector: str) -> str:
        """The text of the one element."""
        return str(self._do(self._page.locator(selector).inner_text()))

    def click(self, role: Any, name: str) -> None:
        """Click the one element of this role and accessible name."""
        self._do(self._page.get_by_role(role, name=name).click())

    def evaluate(self, script: str) -> Any:
        """What a script in the page answers."""
        return self._do(self._page.evaluate(script))

    def picture(self, path: str) -> None:
        """Write a PNG of the whole page."""
        self._do(self._page.screenshot(path=path, full_page=True))


class Browser:
    """Opens tabs, each in a context of its own."""

    def __init__(self, do: Do[Any], launched: Any) -> None:
        self._do = do
        self._launched = launched

    @contextlib.contextmanager
    def tab(
        self, url: str, size: tuple[int, int] = DESKTOP, *, scheme: str = "light", may_fail: bool = False
    ) -> Iterator[Tab]:
        """Open `url`; at the end no fault may have been seen, but for requests that fail where `may_fail`.

        Raises:
            AssertionError: the page had a fault.

        """
        viewport = {"width": size[0], "height": size[1]}
        context: BrowserContext = self._do(
            self._launched.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
        )
        try:
            tab = self._do(self._opened(context, url))
            yield tab
            faults = [each for each in tab.faults if not (may_fail and "Failed to load resource" in each)]
            assert not faults, faults
        finally:
            self._do(context.close())

    async def _opened(self, context: BrowserContext, url: str) -> Tab:
        """On the browser's own loop, since listening starts tasks."""
        page = await context.new_page()
        tab = Tab(self._do, page, urlsplit(url).netloc)
        await page.goto(url)
        return tab


@contextlib.contextmanager
def launched(path: str) -> Iterator[Browser]:
    """A browser for as long as the context lasts. Root may not use Chromium's sandbox."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="browser", daemon=True)
    thread.start()

    def do(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(_DEADLINE_S)

    try:
        playwright = do(async_playwright().start())
        try:
            browser = do(
                playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
            )
            try:
                yield Browser(do, browser)
            finally:
                do(browser.close())
        finally:
            do(playwright.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_DEADLINE_S)
        loop.close()
