"""A rollout that is told to end: Kubernetes says SIGTERM, and gives some seconds to tidy up."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from modelyard.components.errors import CancelledError


@contextmanager
def heeded() -> Iterator[None]:
    """Raise CancelledError where the process is when it is told to end; a second time changes nothing.

    Only the main thread can be interrupted; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: int | FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what is left to do has the rest of the seconds
        raise CancelledError("This rollout was told to end (SIGTERM).")

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def deferred() -> Iterator[None]:
    """Let a block be done with before the process ends of SIGTERM; Ctrl-C still breaks it off."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
