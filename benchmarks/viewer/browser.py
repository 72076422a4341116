"""The viewer of a run in Chromium: seconds from the page to its connection, and from there to the first picture."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.viewer.client import decoded

ROOT = Path(__file__).parents[2]
OPTIONS = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")  # software WebGL
PATIENCE = 90.0  # seconds


class Watch:
    """When what was seen first, seconds; takes the messages that a page receives."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}

    def note(self, what: str) -> None:
        """It has happened now, unless it has before."""
        self.times.setdefault(what, time.monotonic())

    def connect(self, socket: Any) -> None:
        """A page has opened its WebSocket."""
        self.note("connection")
        socket.on("framereceived", self.receive)

    def receive(self, data: str | bytes) -> None:
        """A page has received this."""
        if isinstance(data, bytes) and any(found["type"] == "BackgroundImageMessage" for found in decoded(data)):
            self.note("picture")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--port", type=int, default=7322, help="a free one; default: 7322")
    parser.add_argument("--out", type=Path, help="a picture of the page, after 30 seconds more")
    args = parser.parse_args()
    command = [sys.executable, "view.py", str(args.run), "--port", str(args.port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as viewer:
        try:
            assert viewer.stdout is not None
            measure(viewer.stdout.readline().strip(), args.out)
        finally:
            viewer.terminate()
    return 0


def measure(address: str, out: Path | None) -> None:
    """Open a page and print what came when."""
    from playwright.sync_api import sync_playwright

    program, watch = shutil.which("chromium") or shutil.which("google-chrome"), Watch()
    options = [*OPTIONS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=options)
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.on("websocket", watch.connect)
        watch.note("begin")
        page.goto(address, timeout=1000 * PATIENCE)
        watch.note("page")
        end = time.monotonic() + PATIENCE
        while "picture" not in watch.times and time.monotonic() < end:
            page.wait_for_timeout(20)
        for first, then in (("begin", "page"), ("page", "connection"), ("connection", "picture")):
            if first in watch.times and then in watch.times:
                print(f"{first + ' to ' + then:22} {watch.times[then] - watch.times[first]:.2f} s")
        if out is not None:
            page.wait_for_timeout(30_000)
            page.screenshot(path=out, timeout=1000 * PATIENCE)
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
