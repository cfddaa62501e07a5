"""A real Chromium, and pages that remember what they asked for and complained of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
TIMEOUT_MS = 20_000


@dataclass
class Seen:
    """A page. hosts: that it asked anything of; complaints: errors and warnings in its console, and uncaught ones."""

    page: Page
    hosts: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)

    def hear(self, kind: str, text: str) -> None:
        """Remember what its console was told, where it is a complaint."""
        if kind in {"error", "warning"}:
            self.complaints.append(text)

    def text(self, selector: str) -> str:
        """What an element shows."""
        return self.page.locator(selector).inner_text()

    def rows(self, table: str) -> list[list[str]]:
        """The cells of a table's body."""
        return [row.locator("td").all_inner_texts() for row in self.page.locator(f"#{table} tbody tr").all()]

    def choose(self, chooser: str, option: str) -> None:
        """Choose from a drop-down list."""
        self.page.locator(f"#{chooser}").click()
        self.page.get_by_role("option", name=option, exact=True).click()


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium of the system; skips without one."""
    program = next((found for name in _PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("Chromium is not installed: `make setup` brings it where it may")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, width: int = 1280) -> Iterator[Seen]:
    """A page of its own; fails when it complained, or asked anything of another host."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    context.set_default_timeout(TIMEOUT_MS)
    seen = Seen(context.new_page())
    seen.page.on("request", lambda request: seen.hosts.add(urlsplit(request.url).hostname or "127.0.0.1"))
    seen.page.on("console", lambda said: seen.hear(said.type, said.text))
    seen.page.on("pageerror", lambda error: seen.hear("error", str(error)))
    seen.page.goto(url)
    try:
        yield seen
    finally:
        context.close()
    assert seen.complaints == []
    assert seen.hosts == {"127.0.0.1"}
