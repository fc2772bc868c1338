import re
from pathlib import Path

import pytest

from modelyard.pipelines.compile.images import Image, describe_oversized, describe_unpushed

REQUIREMENTS = Path(__file__).parents[3] / "requirements"
IMAGES = sorted(path.stem for path in REQUIREMENTS.glob("*.txt") if path.stem not in ("clients", "dev"))


def pins(name: str) -> dict[str, set[str]]:
    """Return the versions that a requirements file allows, by package; several if they depend on Python."""
    versions_by_package: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([\w-]+)==(\S+)", (REQUIREMENTS / f"{name}.txt").read_text(), re.M):
        versions_by_package.setdefault(package, set()).add(version)
    return versions_by_package


@pytest.mark.parametrize("image", IMAGES)
def test_images_pin_the_versions_of_the_tests(image: str) -> None:
    tested = pins("dev")
    pinned = {package: versions for package, versions in pins(image).items() if package in tested}
    assert pinned
    assert pinned == {package: tested[package] for package in pinned}


def test_an_image_above_its_budget_is_reported_with_both_sizes() -> None:
    images = [Image("serve", "serve:1", 481 * 10**6, 1.0), Image("deploy", "deploy:1", 100 * 10**6, 1.0)]
    (problem,) = describe_oversized(images, {"serve": 480, "deploy": 100})
    assert problem.startswith("serve has 481 MB; its budget is 480 MB.")


def test_an_image_that_changed_after_its_push_is_reported() -> None:
    images = [Image(target, f"modelyard/{target}:1", 1, 1.0) for target in ("serve", "deploy", "train")]
    images.append(Image("ingest", "host/modelyard/ingest@sha256:2", 1, 1.0))
    known = {
        "serve": "host/modelyard/serve@sha256:1",
        "deploy": "modelyard/deploy:0",
        "ingest": "host/i@sha256:1",
    }
    (problem,) = describe_unpushed(images, known)
    assert problem.startswith("serve differs from the pushed image host/modelyard/serve@sha256:1")
