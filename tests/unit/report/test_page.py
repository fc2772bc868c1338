import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from modelyard.components.artifacts import Duplicates, Interval, Metric, PairedMetrics
from modelyard.components.problems.base import DisplayValue, Mistake
from modelyard.components.report.page import PlanComparison, ReportedMistake, add_plan, add_run_facts
from modelyard.components.report.thumbnails import MAX_SIDE, encode_data_uri, format_values
from tests.unit.report.conftest import scored_class

VOID = {"meta", "wbr", "br", "img", "line", "circle", "polyline", "link", "input"}


class TagParser(HTMLParser):
    """Fails on an end tag without a start tag; collects the names of all tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_the_page_is_self_contained(page) -> None:
    mistake = Mistake(number=7, actual=DisplayValue("a", "0.1"), predicted=DisplayValue("b", "0.9"))
    pixels = np.zeros((8, 8), np.uint8)
    html = page(("a", "b"), mistakes=[ReportedMistake(mistake, "a/7.png", encode_data_uri(pixels, 0, 16))])
    parsed = TagParser()
    parsed.feed(html)
    assert parsed.open == []
    assert not parsed.tags & {"script", "link", "iframe"}
    assert not re.search(r"https?://|url\(|@import", html)
    assert re.findall(r'src="([^"]{22})', html) == ["data:image/png;base64,"]
    assert "prefers-color-scheme: dark" in html


def test_names_from_the_data_are_escaped(page) -> None:
    html = page(('<script>alert("x")</script>', '" onmouseover="alert(1)'))
    assert "<script>" not in html
    assert 'onmouseover="' not in html
    assert "&lt;script&gt;" in html
    assert "<em>good" not in html


@pytest.mark.parametrize(
    ("shape", "size"),
    [((8, 8, 1), (8, 8)), ((28, 28), (28, 28)), ((96, 48, 3), (48, 96)), ((1000, 700, 3), (63, 90))],
)
def test_an_image_becomes_a_small_png(shape, size) -> None:
    pixels = np.full(shape, 4, np.uint8)
    pixels[: shape[0] // 2] = 16
    uri = encode_data_uri(pixels, 0, 16)
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert image.size == size
    assert max(image.size) <= MAX_SIDE
    array = np.asarray(image)
    assert (array[0, 0].max(), array[-1, -1].max()) == (255, 64)


@pytest.mark.parametrize("shape", [(10,), (8, 8, 2), (3, 8, 1), (4, 100), (2, 8, 8, 1)])
def test_an_example_that_is_not_an_image_has_no_thumbnail(shape) -> None:
    assert encode_data_uri(np.zeros(shape, np.float32), 0, 1) == ""


def test_the_first_values_of_an_array_are_shown() -> None:
    assert format_values(np.array([1, 2.5, -3], np.float32)) == "1, 2.5, -3"
    assert format_values(np.arange(11.0)).endswith("9, …")
    assert format_values(np.zeros((2, 2))) == ""


def test_mistakes_are_shown_with_their_names(page) -> None:
    mistake = Mistake(
        number=1234, actual=DisplayValue("<cat>", "0.001"), predicted=DisplayValue("dog", "0.998")
    )
    long = f"{'folder/' * 20}7.png"
    mistakes = [
        ReportedMistake(mistake, "cat/<1>.png"),
        ReportedMistake(mistake, numbers="1, 2"),
        ReportedMistake(mistake, long),
    ]
    html = page(("<cat>", "dog"), mistakes=mistakes)
    for text in (
        "true 0.001 <b>&lt;cat&gt;",
        "predicted 0.998 <b",
        "cat/&lt;1&gt;.png",
        f'title="{long}"',
        "/7.png</div>",
        "test example 1,234: 1, 2",
    ):
        assert text in html


def test_run_facts_come_first_and_are_escaped(page) -> None:
    html = add_run_facts(page(("a", "b")), {"run": "20261129-1", "data": "<b>/x&y", "version": ""})
    parsed = TagParser()
    parsed.feed(html)
    assert parsed.open == []
    assert html.index("</header>") < html.index("<dt>run</dt><dd>20261129-1</dd>") < html.index("Rules of")
    assert "&lt;b&gt;/x&amp;y" in html
    assert "<dt>version" not in html


def test_keras_objects_are_shown_as_constructor_calls(page) -> None:
    schedule = {"class_name": "CosineDecay", "config": {"initial_learning_rate": 0.01, "decay_steps": 100}}
    adam = {"class_name": "Adam", "config": {"name": "adam", "learning_rate": schedule, "clipnorm": None}}
    model = {"filters": [8, 16], "dropout": 0.0, "arguments": {}}
    html = page(("a", "b"), settings={"model": model, "optimizer": adam, "class_weights": None})
    optimizer = "Adam(learning_rate=CosineDecay(initial_learning_rate=0.01, decay_steps=100))</dd>"
    assert optimizer in html.replace("<wbr>", "")
    assert "<dt>model</dt><dd>filters 8, 16; dropout 0</dd>" in html
    assert "<dt>class weights" not in html


def test_metrics_are_shown(page) -> None:
    html = page(
        ("a", "b"),
        champion=Metric(value=0.85, low=0.82, high=0.88, direction="higher"),
        gain=Interval(value=0.05, low=0.01, high=0.09),
    )
    for text in ("0.9000", "0.8500", "0.0500\n", "5,678", "1,234", "3.15.0", "8 × 8 × 1", "stopped early"):
        assert text in html
    assert html.count("<polyline") == 2


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_accuracy_with_an_empty_interval_is_shown(page, value) -> None:
    certain = Metric(value=value, low=value, high=value, direction="higher")
    assert f"{value:.4f}" in page(("a", "b"), values={"accuracy": certain})


@pytest.mark.parametrize("metrics", [{}, {"loss": [1.0], "accuracy": [1.0]}])
def test_a_history_without_metrics_or_with_one_epoch_is_shown(page, metrics) -> None:
    assert page(("a", "b"), metrics).count("<polyline") == len(metrics)


def test_classes_are_sorted_by_score_and_those_without_a_score_come_last(page) -> None:
    scored = [scored_class("nothing", 0, None), scored_class("good", 1, 0.9), scored_class("bad", 1, 0.0)]
    html = page(("nothing", "good", "bad"), slices=tuple(scored))
    assert re.findall(r'<tr><th scope="row" class="text name">(\w+)', html) == ["bad", "good", "nothing"]


def test_candidate_and_champion_are_shown_on_the_examples_that_no_champion_was_trained_on(page) -> None:
    candidate_values, champion_values = (
        {"accuracy": Metric(value=value, low=value, high=value, direction="higher")}
        for value in (0.8125, 0.875)
    )
    html = page(
        ("a", "b"),
        examples=40,
        same_examples=PairedMetrics(examples=32, candidate=candidate_values, champion=champion_values),
        champion=champion_values["accuracy"],
        trained_on={3: Duplicates(count=8, origins=("row 4 of train and row 2 of test",))},
    )
    for text in ("0.8125", "0.8750", "version 3</span>", "the same 32 of 40 test examples", "row 2 of test"):
        assert text in html
    assert "0.9000" in html.partition("On all 40")[2]


def test_the_rules_and_a_constant_prediction_are_shown(page) -> None:
    html = page(("a", "b"), baseline={"accuracy": 0.625})
    for text in ("accuracy at least", "0.8125", "<td>0.6250</td>", "too few to judge: a (3)"):
        assert text in html


def test_many_classes_are_shown_with_the_most_frequent_confusions(page) -> None:
    html = page(tuple(f"class {number}" for number in range(40)))
    assert "Most frequent confusions" in html
    assert "20 more classes" in html
    assert 'class="matrix"' not in html
    assert 'class="matrix"' in page(tuple(f"class {number}" for number in range(30)))


def test_the_plan_comes_last_and_is_escaped(page) -> None:
    html = add_plan(
        page(("a", "b")),
        {"model": "<script>digits</script>: 1,234 parameters"},
        [PlanComparison("train", "50 s", "55 s", 1.1), PlanComparison("the whole run", "–", "60 s", None)],
        "Planned <today>.",
    )
    parsed = TagParser()
    parsed.feed(html)
    assert parsed.open == []
    assert "<dt>model</dt>" in html
    assert "&lt;script&gt;digits&lt;/script&gt;: 1,234 parameters</dd>" in html
    assert re.findall(r"<td>(?:1\.10|–)</td>", html) == ["<td>1.10</td>", "<td>–</td>", "<td>–</td>"]
    first, *_, last = (title for title in re.findall(r"<h2>([^<]+)", html) if title.startswith("Plan"))
    assert (first, last) == ("Plan", "Planned and actual values")
    assert html.rstrip().endswith("</html>")


def test_a_plan_without_comparisons_has_no_table(page) -> None:
    html = add_plan(page(("a", "b")), {"model": "digits"}, [], "Planned today.")
    assert [title for title in re.findall(r"<h2>([^<]+)", html) if "Plan" in title] == ["Plan"]
    assert "Planned today." in html
