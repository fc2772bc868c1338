"""Stores and runs on file systems without a feature, such as NFS, SMB and FUSE, work or are refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

USE_STORE = """
import json, os, sys
from pathlib import Path
from modelyard.components.errors import ConflictError, ModelyardError
from modelyard.components.store.folder import Folder
from modelyard.pipelines.runners import run_folder

def result(action):
    try:
        return action() or "works"
    except ModelyardError as error:
        return type(error).__name__, str(error)

results = {}
for number, missing in enumerate(sys.argv[1].split(",")):
    os.environ["MISSING"] = missing
    folder = Folder(Path(f"store-{number}"))
    results[missing] = {
        "create": result(lambda: folder.create("m/a", b"1")),
        "create_again": result(lambda: folder.create("m/a", b"2")),
        "replace": result(lambda: len(folder.replace("m/a", b"3", folder.read("m/a")[1]))),
        "stale": result(lambda: folder.replace("m/a", b"4", "0")),
        "read": folder.read("m/a")[0].decode(),
        "home": result(lambda: run_folder.check_folder(Path("home"))),
    }
print(json.dumps(results))
"""
CREATE_OBJECTS = """
import sys
from pathlib import Path
from modelyard.components.errors import ConflictError
from modelyard.components.store.folder import Folder
folder, created = Folder(Path("store")), []
for number in range(60):
    try:
        folder.create(f"m/{number}", sys.argv[1].encode())
        created.append(str(number))
    except ConflictError:
        pass
print(" ".join(created))
"""
CASES = ("links", "locks", "replies", "flush", "maps")


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("gcc"):
        pytest.skip("NOT RUN: gcc, which compiles the simulation of these file systems, is not installed")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture(scope="module")
def results(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    command = [sys.executable, "-c", USE_STORE, ",".join(CASES)]
    environ = {**os.environ, "LD_PRELOAD": str(shim)}
    folder = tmp_path_factory.mktemp("file-systems")
    return json.loads(
        subprocess.run(command, cwd=folder, env=environ, check=True, capture_output=True).stdout
    )


@pytest.mark.parametrize("missing", ["links", "replies", "flush", "maps"])
def test_a_store_works_without_optional_features(results: Any, missing: str) -> None:
    assert results[missing]["create"] == "works"
    assert results[missing]["create_again"][0] == "ConflictError"
    assert results[missing]["replace"] == 64
    assert results[missing]["stale"][0] == "ConflictError"
    assert results[missing]["read"] == "3"


def test_a_store_without_locks_refuses_to_replace(results: Any) -> None:
    kind, message = results["locks"]["replace"]
    assert kind == "StoreError"
    assert "store.url" in message
    assert "No locks available" in message
    assert results["locks"]["read"] == "1"


def test_runs_are_refused_without_locks_or_memory_maps(results: Any) -> None:
    for missing in ("locks", "maps"):
        kind, message = results[missing]["home"]
        assert kind == "ConfigError"
        assert "MODELYARD_HOME" in message
    assert results["links"]["home"] == "works"


def test_one_of_several_writers_creates_an_object_without_hard_links(shim: Path, tmp_path: Path) -> None:
    environ = {**os.environ, "LD_PRELOAD": str(shim), "MISSING": "links"}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE_OBJECTS, name],
            cwd=tmp_path,
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    created = {name: writer.communicate()[0].split() for name, writer in zip("ab", writers, strict=True)}
    assert sorted(map(int, created["a"] + created["b"])) == list(range(60))
    for name, numbers in created.items():
        assert {(tmp_path / "store/m" / number).read_text() for number in numbers} <= {name}
