"""The whole pipeline on a storage that another distribution brings."""

import pytest

from modelyard.components.store.models import open_store
from modelyard.components.store.settings import Store

URL = "shelf://models/of/tests"


@pytest.mark.usefixtures("shelves")
def test_a_run_keeps_its_models_in_a_storage_that_modelyard_does_not_know(workspace, tmp_path):
    summary = workspace.json("run", settings=(*workspace.quick, f"store.url={URL}"))
    assert (summary["state"], summary["decision"], summary["version"]) == ("succeeded", "promote", 1)
    assert summary["prediction"]["version"] == 1
    models = open_store(Store(url=URL))
    assert models.champion("digits").version == 1
    assert models.fetch("digits", 1, tmp_path / "one").run == summary["fingerprint"]
    assert not (workspace.folder / ".modelyard" / "models").exists()
