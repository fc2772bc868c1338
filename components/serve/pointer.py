"""Takes the champion when it changes: beside the old version, which answers until the new one is ready."""

import logging
import threading
from collections.abc import Callable

from modelyard.components.errors import ModelyardError
from modelyard.components.serve.model import Predictor, load
from modelyard.components.store.models import ModelStore

LONGEST_WAIT = 60.0

log = logging.getLogger(__name__)


class Follower(threading.Thread):
    """Looks at the champion pointer every `interval` seconds, in a thread.

    A version that cannot be loaded is not taken, and tried again after a wait that doubles; a store that is
    away for a while changes nothing.

    Args:
        models: the store.
        current: the version that is served now.
        interval: seconds between looks.
        threads: threads of ONNX Runtime for one request.
        take: called with each new version, loaded and warmed up.
    """

    def __init__(
        self,
        models: ModelStore,
        current: Predictor,
        interval: float,
        threads: int,
        take: Callable[[Predictor], None],
    ) -> None:
        super().__init__(name="pointer", daemon=True)
        self._models, self._name, self._version = models, current.name, current.version
        self._interval, self._threads, self._take = interval, threads, take
        self._stopped = threading.Event()
        self._trouble = ""
        self._failures = 0

    def run(self) -> None:
        """Look until `stop` is called."""
        while not self._stopped.wait(self._wait()):
            try:
                self._look()
            except ModelyardError as error:
                self._failed(str(error))
            except Exception as error:  # the thread must outlive whatever a store's client raises
                self._failed(repr(error))
            else:
                self._trouble, self._failures = "", 0

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def _look(self) -> None:
        champion = self._models.champion(self._name)
        if champion is None or champion.version == self._version:
            return
        predictor = load(self._models, self._name, champion.version, champion.digest, self._threads)
        self._version = champion.version
        self._take(predictor)

    def _wait(self) -> float:
        return max(self._interval, min(LONGEST_WAIT, self._interval * 2.0 ** min(self._failures, 16)))

    def _failed(self, trouble: str) -> None:
        self._failures += 1
        if trouble != self._trouble:
            log.warning("still serving version %d of %s: %s", self._version, self._name, trouble)
            self._trouble = trouble
