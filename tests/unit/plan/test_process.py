"""A process that traces, how it may end, and that it ends with the plan."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.components.artifacts import Normalization, Schema, tree_sha256
from modelyard.components.errors import ModelyardError, TooLargeError, TrainError
from modelyard.components.train.measured import Question, Traced
from modelyard.components.train.settings import Code
from modelyard.pipelines.planning.process import ask

PARENT = """
import sys
from pathlib import Path
from modelyard.components.train.measured import Question, Traced
from modelyard.pipelines.planning.process import ask
ask("trace", Question.model_validate_json(Path(sys.argv[1]).read_bytes()), Traced)
"""


def question(folder: Path, body: str) -> Question:
    """Return a question about a model whose `build` does something else."""
    folder.mkdir()
    (folder / "own.py").write_text(
        f"import os, signal, time\n\ndef build(input_shape, classes):\n    {body}\n"
    )
    return Question(
        examples=Schema(shape=(8, 8, 1), dtype="uint8", classes=("cat", "dog"), splits={}),
        normalization=Normalization(),
        architecture={"build": "own:build", "code": str(folder)},
        training={"batch_size": 16},
        code=Code(place=str(folder)).text(),
        code_sha256=tree_sha256(folder),
        rows=600,
    )


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", TooLargeError, "trace of the model was killed, as Linux"),
        pytest.param(
            "os.write(2, b'what(): std::bad_alloc'); os.abort()",
            TooLargeError,
            "too little memory",
            marks=pytest.mark.soak,  # as the next, another process with TensorFlow
        ),
        pytest.param(
            "os.write(2, b'Oh, no.'); os._exit(3)",
            TrainError,
            r"ended with 3: Oh, no\. `modelyard run`",
            marks=pytest.mark.soak,
        ),
        ("raise KeyError('forgotten')", TrainError, r"own.py:4: KeyError: forgotten\. Correct it there"),
    ],
)
def test_what_ended_the_process_is_said(
    body: str, kind: type[ModelyardError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message) as ended:
        ask("trace", question(tmp_path / "own", body), Traced)
    assert type(ended.value) is kind
    assert "\n" not in str(ended.value)


def test_it_ends_with_the_plan_that_asked(tmp_path: Path) -> None:
    mark, file = tmp_path / "mark", tmp_path / "question.json"
    body = f"open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(120)"
    file.write_text(question(tmp_path / "own", body).model_dump_json())
    plan = subprocess.Popen([sys.executable, "-c", PARENT, str(file)])
    wait_for(lambda: mark.is_file() and mark.read_text())
    child = int(mark.read_text())
    assert not gone(child)
    plan.kill()
    plan.wait()
    wait_for(lambda: gone(child))


def wait_for(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 100
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return True
    return state == "Z"
