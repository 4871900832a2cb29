# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""A page in the system's Chromium, without a window and without the internet, as a person would see it.

with open_page(url) as page:
    page.see("3 runs")
    page.click("RUN-1")
    assert "loss" in page.text
    assert not page.errors
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 60.0  # seconds: on a crowded machine a page takes its time; a test that succeeds never waits for it


class Page:
    """What one tab shows.

    Attributes:
        errors: exceptions of the page's scripts, and what they wrote to the console as errors.
        refused: addresses outside this machine that the page asked for; it did not get them.
        tab: Playwright's own page, for everything else.
    """

    def __init__(self, tab: Any) -> None:
        self.tab = tab
        self.errors: list[str] = []
        self.refused: list[str] = []
        tab.set_default_timeout(PATIENCE * 1000)
        tab.on("pageerror", lambda error: self.errors.append(str(error)))
        tab.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        tab.route("**/*", self._answer)

    @property
    def text(self) -> str:
        """The text that is visible now."""
        return str(self.tab.inner_text("body"))

    def open(self, url: str) -> None:
        """Goes to an address: `http://127.0.0.1…` or `file://…`."""
        self.tab.goto(url, wait_until="domcontentloaded")

    def see(self, text: str) -> None:
        """Waits until a text is visible. Fails with what is there instead."""
        from playwright.sync_api import TimeoutError as TooLate

        try:
            self.tab.get_by_text(text).locator("visible=true").first.wait_for()
        except TooLate:
            pytest.fail(f"the page does not show {text!r} but:\n{self.text[:3000]}\nerrors: {self.errors}")

    def click(self, target: str) -> None:
        """Clicks on the first visible thing with this text; `css=…` or `xpath=…` name it otherwise."""
        found = self.tab.locator(target) if target.startswith(("css=", "xpath=")) else self.tab.get_by_text(target)
        found.locator("visible=true").first.click()

    def screenshot(self, path: Path, *, whole: bool = False) -> bytes:
        """The picture as PNG, also into a file; of the `whole` page, however long it is."""
        return bytes(self.tab.screenshot(path=path, full_page=whole, animations="disabled"))

    def _answer(self, route: Any) -> None:
        url = route.request.url
        if urlsplit(url).scheme in ("http", "https") and urlsplit(url).hostname not in ("127.0.0.1", "localhost"):
            self.refused.append(url)
            route.abort()
        else:
            route.continue_()


@contextmanager
def open_page(url: str, *, width: int = 1280, height: int = 800) -> Iterator[Page]:
    """A page in a browser of its own, closed in the end; the test is skipped where there is no Chromium.

    Args:
        url: where it begins.
        width: of the window, in pixels.
        height: likewise.
    """
    program = chromium()
    if program is None:
        pytest.skip(f"Chromium is not installed (none of {', '.join(NAMES)} runs)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=os.geteuid() != 0)
        try:
            size: Any = {"width": width, "height": height}
            page = Page(browser.new_page(viewport=size, locale="en-US", timezone_id="UTC"))
            page.open(url)
            yield page
        finally:
            browser.close()


@cache
def chromium() -> str | None:
    """The system's Chromium or Chrome; None if there is none that starts."""
    for name in NAMES:
        program = shutil.which(name)
        # On some systems the command is there only to say how to install it.
        if program and not subprocess.run([program, "--version"], capture_output=True, check=False).returncode:
            return program
    return None
