"""Processes that use the same store at the same moment, forked from one that has imported what they need."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import google.cloud.storage  # noqa: F401 - before the fork

from modelyard.components.artifacts import Manifest
from modelyard.components.errors import ModelyardError
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.settings import Store

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["__main__", __name__])


class Racer:
    def __init__(self, settings: Store) -> None:
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, settings.text()), daemon=True)
        self.process.start()

    def ask(self, method: str, **arguments: object) -> None:
        self._pipe.send((method, arguments))

    def answer(self) -> Any:
        return self._pipe.recv()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


@contextmanager
def racers(settings: Store, number: int) -> Iterator[list[Racer]]:
    started = [Racer(settings) for _ in range(number)]
    try:
        for racer in started:
            assert racer.answer() == "ready"
        yield started
    finally:
        for racer in started:
            racer.kill()


def work(pipe: Connection, settings: str) -> None:
    """Do what the pipe says to the store, until killed."""
    store = open_store(Store.of(settings))
    pipe.send("ready")
    while True:
        method, arguments = pipe.recv()
        try:
            pipe.send({"answer": act(store, method, arguments)})
        except ModelyardError as error:
            pipe.send({"error": type(error).__name__, "message": str(error)})


def act(store: ModelStore, method: str, arguments: dict[str, Any]) -> object:
    if method == "publish":
        files = {key: Path(path) for key, path in arguments["files"].items()}
        manifest = Manifest.model_validate(arguments["manifest"])
        return store.publish(manifest.model, manifest.version, files, manifest)
    answer = getattr(store, method)(**arguments)
    return answer.model_dump() if hasattr(answer, "model_dump") else answer
