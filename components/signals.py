"""Handle SIGTERM during a rollout or a run."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from modelyard.components.errors import CancelledError


def raise_on_sigterm() -> AbstractContextManager[None]:
    """Raise CancelledError at the first SIGTERM during a block, and ignore a second one."""

    def cancel(*_: int | FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # cleanup has the rest of the grace period
        raise CancelledError("This rollout was told to end (SIGTERM).")

    return on_sigterm(cancel)


def ignore_sigterm() -> AbstractContextManager[None]:
    """Finish a block before the process ends of SIGTERM; Ctrl-C still interrupts it."""
    return on_sigterm(signal.SIG_IGN)


@contextmanager
def on_sigterm(handler: Callable[..., None] | signal.Handlers) -> Iterator[None]:
    """Handle SIGTERM during a block; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
