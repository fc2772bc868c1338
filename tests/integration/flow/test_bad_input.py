"""Bad input of a run: one paragraph with the place and the remedy, its exit code, and nothing is changed."""

import http.server
import io
import re
import shutil
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def champion(digits: Any, new_yard: Callable[[], Any]) -> Any:
    """A yard of its own with a champion, which no bad input may touch."""
    yard = new_yard()
    shutil.copytree(digits[0].folder / ".modelyard" / "models", yard.folder / ".modelyard" / "models")
    return yard


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """A server: /stall sends half of what it promises and waits, /half.npz is none; nothing else is there."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            if self.path not in ("/stall", "/half.npz"):
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", "1000" if self.path == "/stall" else "500")
            self.send_header("ETag", '"one"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"x" * 500)
                self.wfile.flush()
                time.sleep(4 if self.path == "/stall" else 0)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def png(colour: tuple[int, int, int] = (255, 0, 0)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def classes(count: int = 4) -> dict[str, bytes]:
    return {f"{name}/{i}.png": png((i, i, i)) for name in ("cat", "dog") for i in range(count)}


def truncated(folder: Path) -> list[str]:
    whole = zipped(folder / "whole.zip", classes(50)).read_bytes()
    (folder / "half.zip").write_bytes(whole[: len(whole) // 2])
    return ["data.kind=images", f"data.source={folder / 'half.zip'}"]


def climbing(folder: Path) -> list[str]:
    path = zipped(folder / "climb.zip", {**classes(), "cat/../../../evil.png": png()})
    return ["data.kind=images", f"data.source={path}"]


def linked(folder: Path) -> list[str]:
    with tarfile.open(folder / "linked.tar.gz", "w:gz") as archive:
        for name, data in classes().items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("cat/passwd.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return ["data.kind=images", f"data.source={folder / 'linked.tar.gz'}"]


def bomb(folder: Path) -> list[str]:
    path = zipped(folder / "bomb.zip", {**classes(), "cat/big.png": bytes(50_000_000)})
    return ["data.kind=images", f"data.source={path}", "data.max_bytes=1000000"]


def no_picture(folder: Path) -> list[str]:
    path = zipped(folder / "text.zip", {**classes(), "dog/readme.png": b"not a picture"})
    return ["data.kind=images", f"data.source={path}"]


def wrong_sha256(folder: Path) -> list[str]:
    path = zipped(folder / "good.zip", classes())
    return ["data.kind=images", f"data.source={path}", f"data.sha256={'a' * 64}"]


def arrays(folder: Path, **arrays: Any) -> list[str]:
    np.savez(folder / "data.npz", **arrays)
    return ["data.kind=npz", f"data.source={folder / 'data.npz'}"]


def no_rows(folder: Path) -> list[str]:
    return arrays(folder, x=np.zeros((0, 4, 4, 1), np.uint8), y=np.zeros(0, int))


def pickled(folder: Path) -> list[str]:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (folder / "executed",)

    return arrays(folder, x=np.array([Evil()], object), y=np.array([0]))


def bad_label(folder: Path) -> list[str]:
    x, y = np.zeros((40, 4, 4, 1), np.uint8), np.arange(40) % 2
    y[7] = 9
    return [*arrays(folder, x=x, y=y), 'data.classes=["cat","dog"]']


def not_a_number(folder: Path) -> list[str]:
    x = np.random.default_rng(0).random((40, 4, 4, 1)).astype(np.float32)
    x[3, 1, 2, 0] = np.nan
    return arrays(folder, x=x, y=np.arange(40) % 2)


CASES: dict[str, tuple[Callable[[Path], list[str]], int, str]] = {
    "a missing dataset": (lambda f: ["data.kind=npz", f"data.source={f}/none.npz"], 3, "none.npz"),
    "an empty dataset": (no_rows, 3, "(0, 4, 4, 1)"),
    "a truncated archive": (truncated, 3, "half.zip"),
    "an archive that climbs": (climbing, 3, "evil.png"),
    "an archive with a link": (linked, 3, "passwd.png"),
    "a bomb": (bomb, 3, "max_bytes"),
    "a picture that is none": (no_picture, 3, "readme.png"),
    "a wrong sha256": (wrong_sha256, 3, "sha256"),
    "a pickle that would run code": (pickled, 3, "data.npz"),
    "a label out of range": (bad_label, 3, "row 7"),
    "a pixel that is no number": (not_a_number, 3, "row 3"),
    "an unknown optimizer": (lambda _: ["training.optimizer=adamm"], 2, "did you mean adam"),
    "a typo in a key": (lambda _: ["training.epoch=3"], 2, "epochs"),
    "a loss that is no number": (
        lambda _: ["training.optimizer=sgd", "training.optimizer_settings={learning_rate: 1e30}"],
        4,
        "learning_rate",
    ),
    "a store that cannot be written": (lambda f: [f"store.url={f / 'file'}/models"], 7, "file"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_ends_the_run_with_a_paragraph_and_changes_nothing(champion, tmp_path, paragraph, case):
    make, code, words = CASES[case]
    (tmp_path / "file").write_text("not a folder")
    before = champion.state()
    done = champion.modelyard("run", settings=tuple(make(tmp_path)))
    assert done.returncode == code, done.stderr
    assert words in paragraph(done.stderr)
    assert champion.state() == before
    assert champion.leftovers() == []
    assert not (tmp_path / "executed").exists()
    assert not list(tmp_path.rglob("evil.png"))


@pytest.mark.parametrize(
    ("path", "words"), [("/none.npz", "404"), ("/stall", "1 s"), ("/half.npz", "no .npz")]
)
def test_an_address_that_does_not_give_the_data_is_named(champion, web, paragraph, path, words):
    settings = ("data.kind=npz", f"data.source={web}{path}", "data.timeout=1.0")
    done = champion.modelyard("run", settings=settings)
    assert done.returncode == 3, done.stderr
    assert f"{web}{path}" in paragraph(done.stderr)
    assert words in paragraph(done.stderr)
    assert champion.leftovers() == []


def test_a_model_that_does_not_match_the_classes_is_refused(champion, tmp_path, paragraph):
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "wrong.py").write_text(
        "import keras\n\n\ndef build(input_shape, classes):\n"
        "    layers = [keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(classes + 1)]\n"
        "    return keras.Sequential(layers)\n"
    )
    settings = (f"model={{build: 'wrong:build', code: {tmp_path / 'nets'}}}",)
    before = champion.state()
    done = champion.modelyard("run", settings=settings)
    assert done.returncode == 4, done.stderr
    assert "(None, 11)" in paragraph(done.stderr)
    assert champion.state() == before


def test_a_failed_run_tells_a_script_the_step_and_its_log(champion, tmp_path):
    settings = ("data.kind=npz", f"data.source={tmp_path}/none.npz")
    summary = champion.json("run", settings=settings, code=3)
    assert summary["state"] == "failed"
    assert summary["failure"]["kind"] == "DataError"
    assert Path(summary["failure"]["log"]).is_file()


def test_a_failed_run_shows_people_the_end_of_the_steps_log_and_where_the_whole_is(champion, tmp_path):
    done = champion.modelyard("run", settings=tuple(no_picture(tmp_path)))
    assert done.returncode == 3, done.stderr
    shown = re.search(r"^last lines of ingest:\n((?:  .+\n)+)whole log: (.+)$", done.stderr, re.MULTILINE)
    assert shown, done.stderr
    log = Path(shown[2]).read_text()
    assert all(line.strip() in log for line in shown[1].splitlines())
    assert "readme.png" in shown[1]


def test_a_port_in_use_ends_serve_with_its_own_code(champion, paragraph):
    with champion.serving("digits") as url:
        done = champion.modelyard("serve", "digits", "--port", url.rsplit(":", 1)[1])
    assert done.returncode == 8
    assert "--port" in paragraph(done.stderr) or "serving.port" in paragraph(done.stderr)
