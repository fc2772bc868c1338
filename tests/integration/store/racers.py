"""Processes that work at the same store at the same moment; see racer.py for what one does."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelyard.components.store.settings import Store

RACER = Path(__file__).with_name("racer.py")


class Racer:
    def __init__(self, settings: Store) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(RACER), settings.text()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, method: str, **arguments: object) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"method": method, "arguments": arguments}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())


@contextmanager
def racers(settings: Store, number: int) -> Iterator[list[Racer]]:
    started = [Racer(settings) for _ in range(number)]
    try:
        for racer in started:
            assert racer.answer() == "ready"
        yield started
    finally:
        for racer in started:
            racer.process.kill()
            racer.process.communicate()
