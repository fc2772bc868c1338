"""The examples of docs/serving.md, with the small models of these tests."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.integration.serve.test_clients import requires

PAGE = Path(__file__).parents[3] / "docs/serving.md"
SECTION = PAGE.read_text(encoding="utf-8").partition("### Examples")[2].partition("\n### ")[0]
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (9, 9), "white").save(tmp_path / "cat.png")
    return tmp_path


def example(language: str, url: str, **replacements: str) -> str:
    """Return the first example in a language, for the model `tiny` at a URL."""
    text = next(text for block_language, text in BLOCKS if block_language == language)
    for before, after in {"localhost:8501": url.removeprefix("http://"), **replacements}.items():
        assert before in text
        text = text.replace(before, after)
    return text


def run(folder: Path, *command: str) -> str:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_the_page_has_examples_in_all_languages():
    assert [language for language, _ in BLOCKS] == ["sh", "python", "python", "java"]


@requires("curl")
def test_the_examples_with_curl_print_predictions(image_server, regression_server, folder):
    numbers, image, inference = example("sh", "URL").replace("\\\n", "").splitlines()
    three = {"[0,0,0,0,0,0,0,0,0,0]": "[0,0,0]", "[1, 10]": "[1, 3]"}
    tiny = {"diabetes": "tiny", "pets": "tiny", **three}
    outputs = []
    for line, server in ((numbers, regression_server), (image, image_server), (inference, regression_server)):
        for before, after in {"http://URL": server.url, **tiny}.items():
            line = line.replace(before, after)
        outputs.append(json.loads(run(folder, "bash", "-c", line)))
    assert outputs[:2] == [{"predictions": [[0]]}, {"predictions": [[0, 1]]}]
    assert outputs[2]["outputs"][0]["data"] == [0]


def test_the_python_example_prints_a_prediction(image_server, folder):
    assert run(folder, sys.executable, "-c", example("python", image_server.url, pets="tiny")) == "[[0, 1]]\n"


@requires("java")
def test_the_java_example_prints_a_prediction(image_server, folder):
    (folder / "Predict.java").write_text(example("java", image_server.url, pets="tiny"))
    output = run(folder, "java", "-XX:TieredStopAtLevel=1", "Predict.java")
    assert json.loads(output.removeprefix("200 ")) == {"predictions": [[0, 1]]}
