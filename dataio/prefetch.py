"""A thread that keeps the next batches of pixels ready."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from dataio.pictures.pixel_store import GatheredPixels

PREFETCH = 3


class Prefetch:
    """A thread that keeps a few batches ready; what it raises is raised where they are taken."""

    def __init__(self, produce: Callable[[int], GatheredPixels], position: int) -> None:
        self._stop = threading.Event()
        self._ready: queue.Queue[GatheredPixels | Exception] = queue.Queue(PREFETCH)
        arguments = (produce, position, self._ready, self._stop)
        self._thread = threading.Thread(target=_work, args=arguments, name="pixel-prefetch", daemon=True)
        self._thread.start()

    def take(self) -> GatheredPixels:
        item = self._ready.get()
        if isinstance(item, Exception):
            # Left there for the next call: the thread has ended and nothing else will come.
            self._ready.put(item)
            raise item
        return item

    def stop(self, *, wait: bool = True) -> None:
        self._stop.set()
        while True:  # make room, so that a blocked thread sees the event
            try:
                self._ready.get_nowait()
            except queue.Empty:
                break
        if wait:
            self._thread.join()


def _work(
    produce: Callable[[int], GatheredPixels],
    position: int,
    ready: queue.Queue[GatheredPixels | Exception],
    stop: threading.Event,
) -> None:
    try:
        while not stop.is_set():
            item = produce(position)
            position = item.end
            ready.put(item)
    except Exception as error:
        ready.put(error)
