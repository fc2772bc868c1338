"""A workspace: a folder in which the command `modelyard` runs, with runs, cache and store."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.settings import Store
from tests.processes import wait_until

MODELYARD = str(Path(sys.executable).parent / "modelyard")


@dataclass(frozen=True)
class Workspace:
    """A folder and commands in it; `quick` has settings for a run of a few seconds."""

    folder: Path
    quick: ClassVar[tuple[str, ...]] = ("training.epochs=2", "gate.minimum.accuracy=0.2")

    def command(self, *arguments: str | Path, settings: tuple[str, ...] = ()) -> list[str]:
        command = [MODELYARD, *map(str, arguments)]
        return command + [part for setting in settings for part in ("--set", setting)]

    def modelyard(self, *arguments: str | Path, settings: tuple[str, ...] = ()) -> Any:
        """Run a command and return its completed process."""
        return subprocess.run(
            self.command(*arguments, settings=settings),
            cwd=self.folder,
            check=False,
            capture_output=True,
            text=True,
            timeout=800,
        )

    def json(self, *arguments: str | Path, settings: tuple[str, ...] = (), code: int = 0) -> Any:
        """Run a command with `--output json`; return its parsed output."""
        result = self.modelyard(*arguments, "--output", "json", settings=settings)
        assert result.returncode == code, result.stdout + result.stderr
        return json.loads(result.stdout)

    @property
    def models(self) -> ModelStore:
        return open_store(Store(url=str(self.folder / ".modelyard" / "models")))

    def temporary_files(self) -> list[str]:
        """Return the temporary files; an ended run leaves none."""
        paths = [
            path for path in self.folder.rglob("*") if path.name == "scratch" or path.suffix == ".partial"
        ]
        return [str(path) for path in paths + list(self.folder.rglob(".partial/*"))]

    def processes(self) -> list[int]:
        """Return the IDs of processes whose environment has the path of this workspace."""
        path = f"{self.folder}/".encode()
        pids = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # the process has ended
                if process.stat().st_uid == os.getuid() and path in (process / "environ").read_bytes():
                    pids.append(int(process.name))
        return pids

    def wait_until_idle(self) -> None:
        """Wait until this workspace has no processes."""
        wait_until(lambda: not self.processes(), message="processes remain")

    def state(self, name: str = "digits") -> dict[str, Any]:
        """Verify every version; return the state of the store."""
        models, state = self.models, {}
        for version in models.versions(name):
            manifest = models.fetch(name, version, self.folder / "fetched" / str(version))
            state[version] = (manifest.run, manifest.metrics, manifest.decision)
        champion = models.champion(name)
        moves = [(entry.action, entry.version) for entry in models.history(name) if not entry.attempt]
        return {"versions": state, "champion": champion and champion.version, "moves": moves}

    @contextmanager
    def serving(self, name: str) -> Iterator[str]:
        """Run `modelyard serve` on a free port; yield its URL."""
        command = self.command("serve", name, "--port", "0")
        log = (self.folder / "serve.log").open("wb")
        with log, subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=log) as server:
            try:
                assert server.stdout
                line = server.stdout.readline()
                assert line, (self.folder / "serve.log").read_text()
                yield json.loads(line)["url"]
            finally:
                server.terminate()
                server.wait(120)


@pytest.fixture(scope="session")
def new_workspace(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Workspace]:
    return lambda: Workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture
def workspace(new_workspace: Callable[[], Workspace]) -> Workspace:
    return new_workspace()


CLASHING_MODULES = (
    *("components/__init__", "pipelines/__init__", "kfp/__init__", "modelyard/__init__"),
    *("sitecustomize", "json", "queue", "random", "numpy", "keras"),
)
RECORD_MODULES = """
import atexit, os, sys
def record():
    if "--function_to_execute" in sys.argv:
        step = sys.argv[sys.argv.index("--function_to_execute") + 1]
        with open(os.path.join(os.path.dirname(__file__), step), "w") as file:
            file.write(" ".join(sys.modules))
atexit.register(record)
"""


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which each step of `digits` writes the names of its imported modules."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "sitecustomize.py").write_text(RECORD_MODULES)
    return folder


@pytest.fixture(scope="session")
def digits_plan(new_workspace: Callable[[], Workspace], modules: Path) -> tuple[Workspace, Any]:
    """The workspace of `digits` before its run, and a plan of the run.

    The path has special characters, and the folder has modules with the names of imported modules.
    """
    workspace = Workspace(new_workspace().folder / "pets [v1] *?\\ $x '#%:~ python3")
    for name in CLASHING_MODULES:
        module = workspace.folder / f"{name}.py"
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text("raise ImportError('imported')")
    options = ("--probe", "--probe-seconds", "1", "--budget", "0", "--price", "1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(modules), prepend=os.pathsep)
        return workspace, workspace.json("plan", *options, code=13)


OTHER_KERAS = {"backend": "torch", "floatx": "float16", "image_data_format": "channels_first"}
UNRELATED_VARIABLES = {
    **dict.fromkeys(("HTTP_PROXY", "http_proxy"), "http://127.0.0.1:1"),
    **dict.fromkeys(("ALL_PROXY", "HTTPS_PROXY"), "socks5://127.0.0.1:1"),
    **dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), "/missing"),
    **{"KERAS_MAX_EPOCHS": "1", "KERAS_BACKEND": "", "TF_USE_LEGACY_KERAS": "1"},
    **{"MODELYARD_STORE_SERVICE_HOST": "10.0.0.7", "MODELYARD_STORE_PORT": "tcp://10.0.0.7:80"},
    **{"LC_ALL": "C", "PYTHONUTF8": "0", "TZ": "No/Where", "CUDA_VISIBLE_DEVICES": "", "NO_PROXY": "[::1]"},
}
"""Variables of other projects; they must not change a run."""


@pytest.fixture(scope="session")
def digits(digits_plan: tuple[Workspace, Any], modules: Path) -> tuple[Workspace, Any]:
    """A workspace after `modelyard run` with the defaults, and the summary; tests only read it."""
    workspace, _ = digits_plan
    (modules / "keras.json").write_text(json.dumps(OTHER_KERAS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(modules), prepend=os.pathsep)
        for name, value in {**UNRELATED_VARIABLES, "KERAS_HOME": str(modules)}.items():
            patch.setenv(name, value)
        return workspace, workspace.json("run")


@pytest.fixture
def champion(digits: tuple[Workspace, Any], workspace: Workspace) -> Workspace:
    """A writable workspace with the store and the cache of `digits`."""
    ignore = shutil.ignore_patterns("runs", "plans")
    shutil.copytree(digits[0].folder / ".modelyard", workspace.folder / ".modelyard", ignore=ignore)
    return workspace


@pytest.fixture
def error_text() -> Callable[[str], str]:
    """Return a function that returns the error message in stderr: one paragraph without a traceback."""

    def find_error(stderr: str) -> str:
        message = re.search(r"^error: (.+)\Z", stderr.strip(), re.MULTILINE | re.DOTALL)
        assert message, stderr
        assert "\n" not in message[1].strip(), message[1]
        assert "Traceback" not in message[1]
        return message[1]

    return find_error
