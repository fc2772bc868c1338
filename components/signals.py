"""Handling of SIGTERM during a rollout or a run."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from modelyard.components.errors import CancelledError


def raise_on_sigterm() -> AbstractContextManager[None]:
    """Raise CancelledError at the first SIGTERM during a block; ignore later ones."""

    def cancel(*_: int | FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # cleanup has the rest of the grace period
        raise CancelledError("The rollout was cancelled by SIGTERM.")

    return on_sigterm(cancel)


def ignore_sigterm() -> AbstractContextManager[None]:
    """Ignore SIGTERM during a block; Ctrl-C still interrupts it."""
    return on_sigterm(signal.SIG_IGN)


@contextmanager
def on_sigterm(handler: Callable[..., None] | signal.Handlers) -> Iterator[None]:
    """Handle SIGTERM during a block in the main thread; do nothing in other threads."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
