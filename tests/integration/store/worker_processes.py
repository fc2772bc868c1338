"""Processes that use the same store, forked from a process that imported the modules."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


class StoreProcess:
    def __init__(self, settings: Store) -> None:
        self._pipe, child = context.Pipe()
        self.process = context.Process(target=work, args=(child, settings.to_json()), daemon=True)
        self.process.start()

    def call(self, method: str, **arguments: object) -> None:
        self._pipe.send((method, arguments))

    def result(self) -> Any:
        return self._pipe.recv()

    def waits_for_pipe(self) -> bool:
        """Return whether a thread is opening a named pipe that has no writer."""
        for thread in Path(f"/proc/{self.process.pid}/task").glob("*/wchan"):
            with suppress(OSError):  # the thread ended
                if thread.read_text() == "wait_for_partner":
                    return True
        return False

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


@contextmanager
def start_processes(settings: Store, number: int) -> Iterator[list[StoreProcess]]:
    processes = [StoreProcess(settings) for _ in range(number)]
    try:
        for process in processes:
            assert process.result() == "ready"
        yield processes
    finally:
        for process in processes:
            process.kill()


def work(pipe: Connection, settings: str) -> None:
    """Execute the calls of the pipe on the store until killed."""
    store = open_store(Store.from_json(settings))
    pipe.send("ready")
    while True:
        method, arguments = pipe.recv()
        try:
            pipe.send({"result": call_method(store, method, arguments)})
        except ModelyardError as error:
            pipe.send({"error": type(error).__name__, "message": str(error)})


def call_method(store: ModelStore, method: str, arguments: dict[str, Any]) -> object:
    if method == "publish":
        files = {key: Path(path) for key, path in arguments["files"].items()}
        manifest = Manifest.model_validate(arguments["manifest"])
        return store.publish(manifest.model, manifest.version, files, manifest)
    value = getattr(store, method)(**arguments)
    return value.model_dump() if hasattr(value, "model_dump") else value
