"""Clients of a model, and what they failed to get."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Load:
    """Constant requests of clients; `failed` says what went wrong, and who answered is in `versions`."""

    address: tuple[str, int]
    path: str
    instance: list[float]
    sent: int = 0
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._body = json.dumps({"instances": [self.instance]})

    def client(self, keep: bool) -> None:
        """Send requests until the end, on one connection or on a new one each time."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        while not self._end.wait(0.01):
            try:
                connection.request("POST", self.path, self._body, {"content-type": "application/json"})
                reply = connection.getresponse()
                said = reply.read()
                trouble = "" if reply.status == 200 else f"{reply.status}: {said[:200]!r}"
            except (OSError, http.client.HTTPException) as error:
                trouble = repr(error)
            if trouble or not keep:
                connection.close()
            with self._lock:
                self.sent += 1
                self.failed += [trouble] if trouble else []
        connection.close()

    @contextmanager
    def running(self, clients: int = 4) -> Iterator["Load"]:
        threads = [threading.Thread(target=self.client, args=(number % 2 == 0,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._end.set()
            for thread in threads:
                thread.join()
