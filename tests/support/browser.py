"""A headless Chromium without a network, for tests of pages; they are skipped where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

# Software rendering: the machines of tests have no GPU. Root, as in a container, has no sandbox.
OPTIONS = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@contextmanager
def opened(url: str, *, offline: bool = True) -> Iterator[tuple[Any, list[str]]]:
    """A page in a browser, and the list of what it complains of; offline: whether the network is off."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium")
    options = [*OPTIONS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=options)
        try:
            context = browser.new_context(offline=offline, viewport={"width": 900, "height": 700})
            page, said = context.new_page(), []
            page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto(url)
            yield page, said
        finally:
            browser.close()
