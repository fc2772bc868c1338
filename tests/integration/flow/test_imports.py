"""The parent process of a local run imports no heavy modules."""

import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = """
import sys
from modelyard.pipelines.cli import main
try:
    main()
finally:
    with open("modules.txt", "w") as file:
        file.write(" ".join(sys.modules))
"""
HEAVY = (
    "tensorflow",
    "keras",
    "jax",
    "kubernetes",
    "google.cloud",
    "kfp_server_api",
    "onnxruntime",
    "sklearn",
    "pyarrow",
)
SLOW = ("numpy", "pandas", "docker", "requests", "httpx", "urllib3")


def test_a_cached_run_imports_no_heavy_module_and_prints_its_result(champion: Any) -> None:
    """The run uses every part of the parent process: cache, deploy, explain, smoke test."""
    command = [sys.executable, "-c", PROGRAM, "run"]
    result = subprocess.run(command, cwd=champion.folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for text in ("promote", "over HTTP", "modelyard serve digits", ".modelyard/models"):
        assert text in result.stdout
    imported = set((champion.folder / "modules.txt").read_text().split())
    assert "kfp.local" in imported
    assert imported.isdisjoint(HEAVY)
    assert imported.isdisjoint(SLOW)
    assert champion.json("report")["report"] in result.stdout
    published = champion.json("report", "digits")
    assert published["version"] == 1
    assert "<dt>version</dt><dd>1 of digits" in Path(published["report"]).read_text()
