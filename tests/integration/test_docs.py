"""The commands in README.md and docs/ exist with their options, and the tutorial runs."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
import yaml

import modelyard
from modelyard.pipelines import api
from modelyard.pipelines.cli.app import app
from modelyard.pipelines.config.config import DIGITS, Config
from modelyard.pipelines.environments.environment import Environment

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    text = page.read_text()
    blocks = "".join(block.replace("\\\n", " ") for _, _, block in BLOCK.findall(text))
    inline = re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
    lines = [
        line
        for line in (*blocks.splitlines(), *inline)
        if line.startswith("modelyard ") and "COMMAND" not in line
    ]
    lines = [line.replace("[", "").replace("]", "") for line in lines]
    return [re.sub(r"([\w-]+)(\|[\w-]+)+", r"\1", line) for line in lines]  # a|b|c is a


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_exists_with_its_options(page):
    for line in commands(page):
        arguments = shlex.split(line, comments=True)[1:]
        arguments = arguments[: arguments.index("|")] if "|" in arguments else arguments
        command, context = typer.main.get_command(app), None
        while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
            context = command.make_context("modelyard", [], parent=context, resilient_parsing=True)
            name, subcommand, arguments = command.resolve_command(context, arguments)
            assert subcommand, f"{line}: no command {name}"
            command = subcommand
        known = {
            option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        used = {word.split("=")[0] for word in arguments if word.startswith("-")} - {"--help", "-"}
        assert used <= known, f"{page.name}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_target_and_overlay_of_a_page_exists(page):
    text = page.read_text()
    code = "\n".join([*(block for _, _, block in BLOCK.findall(text)), *re.findall(r"`([^`\n]+)`", text)])
    targets = set(re.findall(r"^(?:\w+=\S+ )*make ([a-z-]+)(?![A-Za-z-])", code, re.MULTILINE))
    assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for overlay in re.findall(r"\b(manifests/[\w./-]+)", code):
        assert (ROOT / overlay).exists(), overlay


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_configuration_and_environment_of_a_page_is_valid(page):
    for language, _, text in BLOCK.findall(page.read_text()):
        if language == "yaml" and text.startswith("# environments/"):
            Environment.model_validate({"kind": "kubernetes", **yaml.safe_load(text)})
        elif language == "yaml":
            Config.model_validate({**DIGITS, **yaml.safe_load(text)})


def test_the_command_reference_is_current():
    page = runpy.run_path(str(ROOT / "docs/commands.py"))["commands_page"]()
    assert (ROOT / "docs/commands.md").read_text() == page, "run `make docs`"


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Follow the tutorial; return its folder and the output of its commands."""
    folder, output = tmp_path_factory.mktemp("tutorial"), ""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for language, title, text in BLOCK.findall((ROOT / "docs/tutorial.md").read_text()):
        if title:
            (folder / title).parent.mkdir(exist_ok=True)
            (folder / title).write_text(text)
        elif language == "sh":
            command = ["bash", "-e", "-c", text]
            result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            assert result.returncode == 0, text + result.stderr
            output += result.stdout
    return folder, output


def test_the_tutorial_promotes_a_model_and_predicts(tutorial):
    _, output = tutorial
    assert re.search(r"^decision +promote:", output, re.MULTILINE)
    assert re.search(r"^bars/vertical/000.png +vertical", output, re.MULTILINE)


def test_the_example_pipeline_uses_single_components(tutorial):
    folder, _ = tutorial
    (model,) = folder.glob(".modelyard/runs/*/artifacts/*/train/model")
    script = f"""
import sys
sys.path.insert(0, {str(ROOT / "examples")!r})
import own_pipeline
from kfp import compiler, local
pipeline = own_pipeline.build("bars.yaml")
compiler.Compiler().compile(pipeline, "own.yaml")
local.init(local.SubprocessRunner(use_venv=False), pipeline_root="own")
task = pipeline(model={str(model)!r}, history={str(model.with_name("history"))!r}, date="today")
print(task.outputs["Output"])
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "the model is good enough", result.stdout + result.stderr
    assert "score-again" in (folder / "own.yaml").read_text()


def test_the_package_exports_the_api():
    assert all(getattr(modelyard, name) is getattr(api, name) for name in api.__all__)
