"""A running `modelyard serve` switches to a new champion without a failed request."""

import threading

import httpx
import numpy as np

from tests.processes import wait_until


class Client(threading.Thread):
    """Sends prediction requests one after the other, and records their statuses."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.stopped = url, threading.Event()
        self.statuses: list[int | str] = []

    def run(self) -> None:
        instances = np.zeros((1, 8, 8, 1), int).tolist()
        with httpx.Client(timeout=60) as client:
            while not self.stopped.wait(0.05):
                try:
                    path = f"{self.url}/v1/models/digits:predict"
                    self.statuses.append(client.post(path, json={"instances": instances}).status_code)
                except httpx.HTTPError as error:
                    self.statuses.append(repr(error))


def versions(url: str) -> list[str]:
    status = httpx.get(f"{url}/v1/models/digits", timeout=60).json()["model_version_status"]
    return [version["version"] for version in status]


def test_a_server_switches_to_each_new_champion_without_a_failed_request(champion):
    with champion.serving("digits") as url:
        clients = [Client(url) for _ in range(2)]
        for client in clients:
            client.start()
        second = champion.json("run", settings=("gate=null",))  # the same training, from the cache
        assert second["version"] == second["champion"] == 2
        wait_until(lambda: versions(url) == ["2"])
        champion.json("rollback", "digits")
        wait_until(lambda: versions(url) == ["1"])
        wait_until(lambda: all(len(client.statuses) > 10 for client in clients))
        for client in clients:
            client.stopped.set()
        for client in clients:
            client.join()
        statuses = [status for client in clients for status in client.statuses]
    assert set(statuses) == {200}
