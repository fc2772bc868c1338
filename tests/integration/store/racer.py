"""A process that does to a store what its standard input says, a JSON line at a time, and prints answers."""

import json
import sys
from pathlib import Path

from modelyard.components.artifacts import Manifest
from modelyard.components.errors import ModelyardError
from modelyard.components.store.models import ModelStore
from modelyard.components.store.removal import open_removal
from modelyard.components.store.settings import Store


def act(store: ModelStore, method: str, arguments: dict) -> object:
    if method == "publish":
        files = {key: Path(path) for key, path in arguments["files"].items()}
        manifest = Manifest.model_validate(arguments["manifest"])
        return store.publish(manifest.model, manifest.version, files, manifest)
    answer = getattr(store, method)(**arguments)
    return answer.model_dump() if hasattr(answer, "model_dump") else answer


def say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    store = open_removal(Store.of(sys.argv[1]))
    store.names()  # everything is imported before the first race
    say("ready")
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"answer": act(store, request["method"], request["arguments"])}
        except ModelyardError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        say(answer)


main()
