import json
from pathlib import Path

from modelyard.pipelines.cli.reference import (
    render_config_reference,
    render_environment_reference,
    render_starter_config,
    schema,
)
from modelyard.pipelines.config.config import load

DOCS = Path(__file__).parents[3] / "docs"


def test_config_md_is_up_to_date():
    hint = "run `modelyard config reference > docs/config.md`"
    assert (DOCS / "config.md").read_text(encoding="utf-8") == render_config_reference(), hint


def test_environment_keys_md_is_up_to_date():
    hint = "run `modelyard config reference --environments > docs/environment-keys.md`"
    assert (DOCS / "environment-keys.md").read_text(encoding="utf-8") == render_environment_reference(), hint


def test_every_key_has_a_description():
    schemas, reference = json.loads(schema()), render_config_reference()
    for kind in (schemas, *schemas["$defs"].values()):
        assert kind["additionalProperties"] is False
        for name, field in kind["properties"].items():
            assert field.get("description") or "$ref" in field, name
            assert f"| `{name}` |" in reference


def test_the_starter_config_is_the_digits_and_has_every_key(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(render_starter_config())
    assert load(path, environ={}) == load(environ={})
    text = render_starter_config()
    for kind in json.loads(schema())["$defs"].values():
        if kind["title"] not in ("Resize", "EarlyStopping", "Schedule"):
            assert all(f"{name}:" in text for name in kind["properties"])


def test_comments_of_the_starter_config_are_the_defaults(tmp_path):
    path = tmp_path / "x.yaml"
    text = render_starter_config()
    path.write_text(
        text.replace("# serving:", "serving:").replace("#   port", "  port").replace("8501", "8502")
    )
    assert load(path, environ={}).serving.port == 8502
