"""What is to be done first, by the settings of real environments and the manifests that are shipped."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from modelyard.pipelines.config.config import Config, load
from modelyard.pipelines.environments.accelerators import known
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.planning.effort import POOLS, Effort, effort
from modelyard.pipelines.planning.offers import Offer
from modelyard.pipelines.planning.quantity import unknown

MINE = ("store=gs://pets/models", "pipeline_root=gs://pets/runs")
DIGEST = f"@sha256:{'0' * 64}"
NAMES = ("fingerprint", "ingest", "preprocess", "train", "evaluate", "deploy", "serve")
POOL_FILES = Path(__file__).parents[3] / "manifests/components"


@pytest.fixture
def config() -> Config:
    return load()


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Go where `make images` built nothing, and nobody has an environment."""
    monkeypatch.chdir(tmp_path)


def gke(*settings: str) -> Environment:
    return load_environment("gke", [f"environment.{one}" for one in (*MINE, *settings)], {})


def pushed(environment: Environment, *names: str, by: str = DIGEST) -> Environment:
    """Name images as `make images REGISTRY=…` does."""
    images: Any = {name: f"eu.pkg.dev/pets/modelyard/{name}{by}" for name in names}
    return environment.model_copy(update={"images": {**environment.images, **images}})


def on(accelerator: str, count: int = 1) -> Offer:
    nothing = unknown("")
    return Offer(
        accelerator=accelerator,
        count=count,
        kind=known()[accelerator].kind,
        memory=24e9,
        fit="fits",
        refused=None,
        train=nothing,
        hour=nothing,
        on_demand=nothing,
        spot=nothing,
        price="",
    )


def with_a_model(folder: Path) -> Config:
    """Return the configuration of a model of one's own, whose code is in a folder."""
    (folder / "small.py").write_text("def build(input_shape, classes): ...\n")
    file = folder / "mine.yaml"
    file.write_text("name: mine\ndata: {kind: digits}\nmodel: {build: 'small:build', code: .}\n")
    return load(file)


def the_one(found: tuple[Effort, ...], start: str) -> Effort:
    (one,) = (one for one in found if one.what.startswith(start))
    return one


def test_nothing_is_to_do_on_this_machine(config: Config) -> None:
    assert effort(config, load_environment("local", (), {}), "local", None) == ()


def test_an_accelerator_needs_an_environment_that_has_it(config: Config) -> None:
    (one,) = effort(config, load_environment("local", (), {}), "local", on("nvidia-l4"))
    assert "nvidia-l4 x1" in one.what
    assert "-e gke" in one.how


def test_a_small_cluster_is_one_command(config: Config) -> None:
    kind = load_environment("kind", (), {})
    cluster, images = effort(config, kind, "kind", None)
    assert cluster.how.startswith("make kind-up")
    assert images.how.startswith("make kind-up")
    (alone,) = effort(config, pushed(kind, *NAMES), "kind", None)
    assert alone == cluster


def test_gke_in_the_order_in_which_it_is_done(config: Config) -> None:
    found = effort(config, gke("registry=eu.pkg.dev/pets"), "gke", None)
    assert [one.how.split()[0] for one in found] == ["kubectl", "make", "the", "environment.kfp.endpoint,"]
    assert "nodes with nvidia-l4 x1" in found[0].what
    assert "make images images-accelerators REGISTRY=eu.pkg.dev/pets" in found[1].how
    assert found[2].takes == "unknown: hours to days"
    assert "on Spot" in found[2].what


def test_what_is_named_as_in_the_examples(config: Config) -> None:
    shipped = gke("store=gs://my-project-modelyard/models", "kfp.endpoint=https://HOST/pipeline")
    one = effort(config, shipped, "gke", None)[0]
    assert one.what == "store, kfp.endpoint: still as in an example"
    assert "environments/gke.yaml" in one.how
    assert "./mine.yaml" in effort(config, shipped, "./mine.yaml", None)[0].how


@pytest.mark.parametrize("by", ["", ":v1", ":0123456789abcdef"])
def test_an_image_without_a_digest_may_be_in_no_registry(config: Config, by: str) -> None:
    known_to_be_there = pushed(gke(), *NAMES, "train-cuda")
    found = effort(config, known_to_be_there, "gke", None)
    assert not any(one.what.startswith("images") for one in found)
    one = the_one(effort(config, pushed(known_to_be_there, "serve", by=by), "gke", None), "images")
    assert one.what.endswith("not serve")
    assert one.how == "make images REGISTRY=host/path"


def test_the_image_of_train_is_that_of_its_accelerator(config: Config) -> None:
    found = effort(config, pushed(gke(), *NAMES), "gke", None)
    one = the_one(found, "images")
    assert one.what.endswith("not train-cuda")
    assert one.how == "make images-accelerators REGISTRY=host/path"
    assert "GB of disk" in one.takes


def test_a_pool_of_another_machine_is_said(config: Config) -> None:
    shipped = the_one(effort(config, gke(), "gke", None), "namespaces")
    assert "machine type" not in shipped.how
    assert "components/spot" not in shipped.how
    other = gke("steps.train.accelerator.type=nvidia-h100-80gb", "steps.train.spot=false")
    changed = the_one(effort(config, other, "gke", None), "namespaces")
    assert "machine type in components/gpu-node-pool" in changed.how
    assert "no components/spot" in changed.how


def test_an_accelerator_that_is_asked_about_takes_the_place_of_ones_own(config: Config) -> None:
    found = effort(config, gke(), "gke", on("tpu-v6e-slice", 4))
    assert found[0].what == "train asks for nvidia-l4 x1, and this plan is for tpu-v6e-slice x4"
    assert "keras_backend: jax" in found[0].how
    assert the_one(found, "quota").what.startswith("quota for tpu-v6e-slice x4")
    assert not any(one.what.startswith("train asks") for one in effort(config, gke(), "gke", on("nvidia-l4")))


def test_a_model_of_ones_own_has_to_run_on_jax(tmp_path: Path) -> None:
    tpu = gke(
        "keras_backend=jax",
        "steps.train.accelerator={type: tpu-v6e-slice, count: 4, topology: 2x2}",
    )
    own = with_a_model(tmp_path)
    assert "keras.ops" in effort(own, tpu, "gke", None)[-1].how
    assert not any("keras.ops" in one.how for one in effort(load(), tpu, "gke", None))
    assert not any("keras.ops" in one.how for one in effort(own, gke(), "gke", None))


def test_any_gpu_is_that_of_a_node_of_ones_own(config: Config) -> None:
    found = effort(config, gke("steps.train.accelerator.type=gpu"), "gke", None)
    assert the_one(found, "a node that offers nvidia.com/gpu").takes.startswith("unknown")
    assert not any(one.what.startswith("quota") for one in found)
    assert "overlays/gke " in the_one(found, "namespaces").how


def test_the_list_is_short(tmp_path: Path) -> None:
    own = with_a_model(tmp_path)
    worst = gke(
        "store=gs://my-project/models",
        "keras_backend=jax",
        "steps.train.accelerator={type: tpu-v6e-slice, count: 4, topology: 2x2}",
    )
    assert len(effort(own, worst, "gke", None)) == 6


def test_the_pools_are_those_of_the_manifests() -> None:
    gpu = yaml.safe_load((POOL_FILES / "gpu-node-pool/container-node-pool.yaml").read_text())
    (accelerator,) = gpu["spec"]["nodeConfig"]["guestAccelerator"]
    tpu = (POOL_FILES / "tpu-node-pool/container-node-pool.yaml").read_text()
    topology = yaml.safe_load(tpu)["spec"]["placementPolicy"]["tpuTopology"]
    (name,) = (one for one in known() if f"gke-tpu-accelerator: {one} " in tpu)
    assert ((accelerator["type"], accelerator["count"]), (name, known()[name].topologies[topology])) == POOLS
