"""The commands of README.md and docs/ exist with their options, and the tutorial can be followed."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from modelyard.pipelines.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    blocks = "".join(text.replace("\\\n", " ") for language, _, text in BLOCK.findall(page.read_text()))
    lines = [line for line in blocks.splitlines() if line.startswith("modelyard ") and "[" not in line]
    return [re.sub(r"([\w-]+)(\|[\w-]+)+", r"\1", line) for line in lines]  # a|b|c is a


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_exists_with_its_options(page):
    for line in commands(page):
        words = shlex.split(line, comments=True)[1:]
        words = words[: words.index("|")] if "|" in words else words
        command, context = typer.main.get_command(app), None
        while hasattr(command, "commands") and words and not words[0].startswith("-"):
            context = command.make_context("modelyard", [], parent=context, resilient_parsing=True)
            name, found, words = command.resolve_command(context, words)
            assert found, f"{line}: no command {name}"
            command = found
        known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        used = {word.split("=")[0] for word in words if word.startswith("-")} - {"--help", "-"}
        assert used <= known, f"{page.name}: {line}"


def test_the_tutorial_can_be_followed(tmp_path):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    printed = ""
    for language, title, text in BLOCK.findall((ROOT / "docs/tutorial.md").read_text()):
        if title:
            (tmp_path / title).parent.mkdir(exist_ok=True)
            (tmp_path / title).write_text(text)
        elif language == "sh":
            ended = subprocess.run(
                ["bash", "-e"], input=text, cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert ended.returncode == 0, text + ended.stderr
            printed += ended.stdout
    assert "promote: the candidate's accuracy is 1.0000" in printed
    assert re.search(r"vertical.*1\.0000|1\.0000.*vertical", printed)
