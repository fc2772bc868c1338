"""What a training takes and gives: features on disk, code of the user's own, and the step as KFP calls it."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from modelyard.components import artifacts
from modelyard.components.artifacts import History, Normalization, Schema
from modelyard.components.shards import ShardWriter
from modelyard.components.store.settings import Store
from modelyard.components.train import model as networks
from modelyard.components.train import trainer
from modelyard.components.train.backend import keras
from modelyard.components.train.checkpoint import CheckpointStore
from modelyard.components.train.data import Features
from modelyard.components.train.settings import CodeLocation, Model, Training
from modelyard.components.train.spec import TrainSpec

SMALL: dict[str, Any] = {"filters": [4], "dense": [8]}
QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 16}


@dataclass(frozen=True)
class TrainEnv:
    """A folder with what one run of the step takes and gives."""

    root: Path

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def history(self) -> Path:
        return self.root / "history"

    def images(
        self, count: int = 60, shape: tuple[int, ...] = (8, 8, 1), dtype: str = "uint8", seed: int = 0
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Give images of three classes, each with a bright row of its own under noise."""
        random, labels = np.random.default_rng(seed), np.arange(count) % 3
        images = random.integers(0, 60, (count, *shape))
        images[np.arange(count), 2 * labels % shape[0]] += 190
        return images.astype(dtype), labels

    def features(
        self,
        *train: NDArray[Any],
        validation: int = 12,
        mean: tuple[float, ...] = (0.0,),
        deviation: tuple[float, ...] = (255.0,),
    ) -> Path:
        """Write features as preprocess does; without rows of its own, from `images`."""
        examples, labels = train or self.images()
        shape, dtype = examples.shape[1:], str(examples.dtype)
        held = self.images(validation, shape, dtype, seed=1)
        directory = self.root / "features"
        directory.mkdir()
        for split, (rows, classes) in {"train": (examples, labels), "validation": held}.items():
            with ShardWriter(directory, split, shape, dtype) as writer:
                writer.append(rows, classes)
        sizes = {"train": len(examples), "validation": validation}
        facts = {"shape": shape, "dtype": dtype, "splits": sizes}
        facts |= {"problem": "classification", "names": ("cat", "dog", "emu")}
        artifacts.write(directory / "schema.json", Schema.model_validate(facts))
        artifacts.write(directory / "normalization.json", Normalization(mean=mean, deviation=deviation))
        return directory

    def code(self, **modules: str) -> Path:
        """Write the user's own modules into a folder."""
        folder = self.root / "networks"
        folder.mkdir(exist_ok=True)
        for name, text in modules.items():
            (folder / f"{name}.py").write_text("import keras\nfrom keras import layers\n\n" + dedent(text))
        return folder

    def train(self, model: dict[str, Any] | None = None, code_sha256: str = "", **training: Any) -> History:
        """Run the step and return its history; `model` and `training` are as in the configuration."""
        if not (self.root / "features").is_dir():
            self.features()
        spec = self.spec(model, code_sha256, **training)
        trainer.train(str(self.root / "features"), spec, "here", str(self.model), str(self.history))
        return artifacts.read(self.history / "history.json", History)

    def spec(self, model: dict[str, Any] | None = None, code_sha256: str = "", **training: Any) -> TrainSpec:
        """Return the step's spec."""
        settings = Model.model_validate(SMALL if model is None else model)
        code = settings.code or ""
        known = code_sha256 or (artifacts.tree_sha256(Path(code)) if code else "")
        return TrainSpec(
            model=settings,
            training=Training.model_validate(QUICK | training),
            code=CodeLocation(url=code) if code else None,
            code_sha256=known,
            store=Store(url=str(self.root / "store")),
        )

    def fit(
        self, model: dict[str, Any] | None = None, store: CheckpointStore | None = None, **training: Any
    ) -> tuple[History, Any]:
        """Fit as the step does, without the export at its end; return the history and the network."""
        if not (self.root / "features").is_dir():
            self.features()
        rows = Features.read(self.root / "features")
        settings = Model.model_validate(SMALL if model is None else model)
        plan = Training.model_validate(QUICK | training)
        keras.utils.set_random_seed(plan.seed)
        code = Path(settings.code or "")
        sha256 = artifacts.tree_sha256(code) if settings.code else ""
        network = networks.build_network(
            settings, rows.schema, rows.normalization, code, sha256, plan.precision
        )
        trainer.compile_model(network, settings, plan, rows.schema, rows.normalization, len(rows.train))
        return trainer.fit(network, rows, plan, store), network

    def export(self, build: str, **training: Any) -> None:
        """Fit the user's own network and export it, without the rehearsal of the export in between."""
        model = {"build": build, "code": str(self.root / "networks")}
        _, network = self.fit(model, **training)
        rows = Features.read(self.root / "features")
        exported = networks.add_export_layer(network, Model.model_validate(model), rows.schema)
        checked = rows.train.gather(np.arange(8))
        self.model.mkdir()
        trainer.export(exported, rows.schema, rows.normalization, checked, self.model)

    def train_user_code(
        self, build: str, arguments: dict[str, Any] | None = None, **settings: Any
    ) -> History:
        """Run the step with the user's own code, `build` being module:function."""
        own = {"build": build, "code": str(self.root / "networks"), "arguments": arguments or {}}
        return self.train(own | settings.pop("model", {}), **settings)

    def load_model(self) -> Any:
        """Load model.keras."""
        return keras.saving.load_model(self.model / "model.keras")

    def output_files(self) -> list[str]:
        """Return the names of what the step wrote, halves too."""
        return sorted(path.name for path in self.root.iterdir() if path.name.startswith(("model", "history")))


@pytest.fixture
def train_env(tmp_path: Path) -> Iterator[TrainEnv]:
    """An environment of its own, whose code is forgotten afterwards."""
    path, modules = sys.path.copy(), set(sys.modules)
    yield TrainEnv(tmp_path)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    keras.saving.get_custom_objects().clear()
