"""Clients of a model, and their failed requests."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Load:
    """Clients that send requests until they are stopped; `failed` has the failures."""

    address: tuple[str, int]
    path: str
    instance: list[float]
    sent: int = 0
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._body = json.dumps({"instances": [self.instance]})

    def client(self, keep_alive: bool) -> None:
        """Send requests until the end, on one connection or on a new connection for each request."""
        connection = self._connect()
        while not self._end.wait(0.01):
            if not self._send(connection) or not keep_alive:
                connection.close()
        connection.close()

    def send_once(self) -> bool:
        """Send a request on a new connection, and return whether it succeeded."""
        connection = self._connect()
        try:
            return self._send(connection)
        finally:
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

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self.address, timeout=30)

    def _send(self, connection: http.client.HTTPConnection) -> bool:
        try:
            connection.request("POST", self.path, self._body, {"content-type": "application/json"})
            response = connection.getresponse()
            content = response.read()
            failure = "" if response.status == 200 else f"{response.status}: {content[:200]!r}"
        except (OSError, http.client.HTTPException) as error:
            failure = repr(error)
        with self._lock:
            self.sent += 1
            self.failed += [failure] if failure else []
        return not failure
