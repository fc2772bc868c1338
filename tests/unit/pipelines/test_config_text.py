import pytest

from modelyard.components.errors import ConfigError
from modelyard.pipelines.config.text import dump, parse, parse_duration


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("True", True),
        ("~", None),
        ("", None),
        ("010", 10),
        ("0x10", "0x10"),
        ("-3", -3),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("1.", 1.0),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("<<", "<<"),
        ("'3'", "3"),
        ("!!str 3", "3"),
        ("gs://bucket/a", "gs://bucket/a"),
        (".inf", ".inf"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    parsed = parse(text, "x").value
    assert parsed == value
    assert type(parsed) is type(value)


def test_parse_records_the_line_of_each_key():
    parsed = parse("a: 1\nb:\n  c: 2\n  d:\n  - 1\n  - x\n", "x")
    assert parsed.value == {"a": 1, "b": {"c": 2, "d": [1, "x"]}}
    assert parsed.lines["a",] == 1
    assert parsed.lines["b", "c"] == 3
    assert parsed.lines["b", "d"] == 4
    assert parsed.lines["b", "d", 1] == 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "x, line 4: the key 'c' is duplicated"),
        ("a: &k 1\nb: *k\n", r"x, line 2: the alias \*k is not allowed"),
        ("a: &k [*k]\n", r"x, line 1: the alias \*k is not allowed"),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            "x, line 1: the tag .*os.system is not allowed: remove",
        ),
        ("a: !!python/name:os.system x\n", "x, line 1: the tag .* is not allowed: remove it"),
        ("a: !!set {x}\n", "x, line 1: the tag .*set is not allowed"),
        ("a: !!int x\n", "x, line 1: 'x' is not a valid int"),
        ("1.5: a\n", "x, line 1: the key '1.5' is not text: put it in quotes"),
        ("3: a\n'3': b\n", "x, line 2: the key '3' is duplicated"),
        ("? [a]\n: b\n", "x, line 1: a key is a sequence"),
        ("a: [1\n", "x, line 2: this is not YAML: .* Check the indentation"),
        ("a: 1\n---\nb: 2\n", "x, line 2: there is more than one document"),
        ("a: \x01\n", "x: this is not YAML: .*special characters"),
        ("a: " + "9" * 5000, "x, line 1: '99.*' is not a valid int"),
        ("a: 1e999", "x, line 1: '1e999' is too large"),
        ("[" * 500, "x: .* nested too deeply"),
    ],
)
def test_invalid_yaml_is_an_error(text, expected):
    with pytest.raises(ConfigError, match=expected):
        parse(text, "x")


def test_dumped_yaml_is_parsed_to_an_equal_value():
    value = {"a": ["no", "1e-3", "010", "true", "~", "", "2026-01-01", "é: #"], "b": {"c": 1e-7, "d": None}}
    assert parse(dump(value), "x").value == value


@pytest.mark.parametrize(
    ("text", "value"), [("90m", 5400), ("12h", 43200), ("30d", 2592000), ("8w", 4838400)]
)
def test_a_duration_is_parsed_to_seconds(text: str, value: int) -> None:
    assert parse_duration(text, "--force-after") == value


@pytest.mark.parametrize("text", ["", "0d", "30", "30 d", "1y"])
def test_an_invalid_duration_is_an_error_with_its_option(text: str) -> None:
    with pytest.raises(ConfigError, match="--force-after"):
        parse_duration(text, "--force-after")
