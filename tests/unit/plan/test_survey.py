"""What a plan knows of the data: what is here is counted, and what is not is as its kind or somebody says."""

import json
from typing import Any

import pytest

from modelyard.components.errors import ConfigError
from modelyard.pipelines.cli import invoke
from modelyard.pipelines.config.config import Config, load
from modelyard.pipelines.planning import survey
from modelyard.pipelines.planning.survey import look

PETS = {"kind": "images", "source": "https://example.com/pets.zip", "resize": {"height": 8, "width": 8}}


def config(**data: Any) -> Config:
    return load(None, [f"data={json.dumps(data)}"])


@pytest.fixture
def stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is prepared."""

    def prepare(_: Config) -> None:
        raise AssertionError("it was prepared")

    monkeypatch.setattr(survey, "prepare", prepare)


@pytest.mark.usefixtures("stays")
def test_an_official_archive_is_as_its_page_describes_it() -> None:
    found = look(
        config(kind="cifar10", source="https://example.com/cifar-10.tar.gz"), None, None, fetch=False
    )
    assert (found.basis, found.features) == ("assumed", "")
    assert sum(found.rows.values()) == 60_000
    assert found.rows["test"] == 10_000
    assert (found.examples.shape, len(found.examples.classes)) == ((32, 32, 3), 10)


@pytest.mark.usefixtures("stays")
def test_pictures_are_as_somebody_says() -> None:
    found = look(config(**PETS, test=0.2, validation=0.1), 1000, 3, fetch=False)
    assert (found.basis, found.source) == ("given", "said with --rows")
    assert found.rows == {"train": 720, "validation": 80, "test": 200}
    assert (found.examples.shape, found.examples.classes) == ((8, 8, 3), ("0", "1", "2"))


@pytest.mark.usefixtures("stays")
@pytest.mark.parametrize(
    ("rows", "classes", "said"), [(None, 3, "Give --rows, or --fetch"), (1000, None, "--rows and --classes")]
)
def test_half_of_it_is_not_enough(rows: int | None, classes: int | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        look(config(**PETS), rows, classes, fetch=False)


@pytest.mark.usefixtures("stays")
@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"kind": "digits"}, "The digits are"),
        ({"kind": "npz", "source": "/data/set.npz"}, "/data/set.npz is"),
    ],
)
@pytest.mark.parametrize("fetch", [False, True])
def test_rows_that_are_here_are_counted_and_not_said(data: Any, said: str, fetch: bool) -> None:
    with pytest.raises(ConfigError, match=rf"^{said} on this machine.* and --rows says 5,000\. Leave it out"):
        look(config(**data), 5000, None, fetch)


@pytest.mark.parametrize("option", ["--fetch", "--learning-curve"])
def test_rows_are_said_or_fetched(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["plan", "--rows", "50", option]) == ConfigError.exit_code
    assert f"--rows 50 is for data that stays where it is, and {option} brings it" in capsys.readouterr().err
