"""Golden requests: anything but the answers that evaluate saw is an error."""

from dataclasses import dataclass
from typing import Any

import pytest

from components.artifacts import Golden
from components.deploy import golden
from components.errors import DeployError

SEEN = Golden(instances=[[0.0], [1.0]], predictions=[[0.25, 0.75], [0.5, 0.5]])


@dataclass
class Server:
    answers: list[Any]

    def get(self, path: str) -> bytes:
        raise AssertionError(path)

    def post(self, path: str, body: Any) -> Any:
        assert path == "/v1/models/digits/versions/7:predict"
        return self.answers[SEEN.instances.index(body["instances"][0])]


def test_answers_within_the_tolerance_pass():
    answers = [{"predictions": [[0.255, 0.745]]}, {"predictions": [[0.5, 0.5]]}]
    golden.replay(Server(answers), "digits", 7, SEEN, 0.01)


@pytest.mark.parametrize(
    "answer",
    [
        {"predictions": [[0.5, 0.52]]},
        {"predictions": [[0.5, float("nan")]]},
        {"predictions": [[float("nan"), 0.5]]},
        {"predictions": [[0.5]]},
        {"predictions": [[0.5, 0.5, 0.0]]},
        {"predictions": [["a", "b"]]},
        {"predictions": []},
        {"error": "no"},
        None,
    ],
)
def test_others_do_not(answer):
    with pytest.raises(DeployError, match=r"Version 7 of digits .* golden request 1 "):
        golden.replay(Server([{"predictions": [[0.25, 0.75]]}, answer]), "digits", 7, SEEN, 0.01)
