"""The step train in a temporary folder, with features and user code."""

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
    """The folder of an execution of the step, with its inputs and outputs."""

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
        """Return images with noise and labels of three classes; each class has a different bright row."""
        random, labels = np.random.default_rng(seed), np.arange(count) % 3
        images = random.integers(0, 60, (count, *shape))
        images[np.arange(count), 2 * labels % shape[0]] += 190
        return images.astype(dtype), labels

    def features(
        self,
        *train: NDArray[Any],
        validation: int = 12,
        mean: tuple[float, ...] = (0.0,),
        scale: tuple[float, ...] = (255.0,),
    ) -> Path:
        """Write features as preprocess does; by default those of `images`."""
        examples, labels = train or self.images()
        shape, dtype = examples.shape[1:], str(examples.dtype)
        held_out = self.images(validation, shape, dtype, seed=1)
        folder = self.root / "features"
        folder.mkdir()
        for split, (part, classes) in {"train": (examples, labels), "validation": held_out}.items():
            with ShardWriter(folder, split, shape, dtype) as writer:
                writer.append(part, classes)
        sizes = {"train": len(examples), "validation": validation}
        fields = {"shape": shape, "dtype": dtype, "splits": sizes}
        fields |= {"problem": "classification", "names": ("cat", "dog", "emu")}
        artifacts.write(folder / "schema.json", Schema.model_validate(fields))
        artifacts.write(folder / "normalization.json", Normalization(mean=mean, scale=scale))
        return folder

    def code(self, **modules: str) -> Path:
        """Write modules into the folder of the user's code."""
        folder = self.root / "networks"
        folder.mkdir(exist_ok=True)
        for name, text in modules.items():
            (folder / f"{name}.py").write_text("import keras\nfrom keras import layers\n\n" + dedent(text))
        return folder

    def train(self, model: dict[str, Any] | None = None, code_sha256: str = "", **training: Any) -> History:
        """Run the step with sections of a configuration and return its history."""
        if not (self.root / "features").is_dir():
            self.features()
        spec = self.spec(model, code_sha256, **training)
        trainer.train(
            str(self.root / "features"), spec, "gs://bucket/features", str(self.model), str(self.history)
        )
        return artifacts.read(self.history / "history.json", History)

    def spec(self, model: dict[str, Any] | None = None, code_sha256: str = "", **training: Any) -> TrainSpec:
        """Return the spec of the step."""
        settings = Model.model_validate(SMALL if model is None else model)
        code = settings.code or ""
        sha256 = code_sha256 or (artifacts.tree_sha256(Path(code)) if code else "")
        return TrainSpec(
            model=settings,
            training=Training.model_validate(QUICK | training),
            code=CodeLocation(url=code) if code else None,
            code_sha256=sha256,
            store=Store(url=str(self.root / "store")),
        )

    def fit(
        self, model: dict[str, Any] | None = None, store: CheckpointStore | None = None, **training: Any
    ) -> tuple[History, Any]:
        """Fit as the step does, without the export; return the history and the network."""
        if not (self.root / "features").is_dir():
            self.features()
        features = Features.read(self.root / "features")
        settings = Model.model_validate(SMALL if model is None else model)
        training_settings = Training.model_validate(QUICK | training)
        keras.utils.set_random_seed(training_settings.seed)
        code = Path(settings.code or "")
        sha256 = artifacts.tree_sha256(code) if settings.code else ""
        network = networks.build_network(
            settings, features.schema, features.normalization, code, sha256, training_settings.precision
        )
        trainer.compile_model(
            network, settings, training_settings, features.schema, features.normalization, len(features.train)
        )
        return trainer.fit(network, features, training_settings, store), network

    def export(self, build: str, **training: Any) -> None:
        """Fit a network of user code and export it once, after the training."""
        model = {"build": build, "code": str(self.root / "networks")}
        _, network = self.fit(model, **training)
        features = Features.read(self.root / "features")
        exported = networks.add_export_layer(network, Model.model_validate(model), features.schema)
        examples = features.train.gather(np.arange(8))
        self.model.mkdir()
        trainer.export(exported, features.schema, features.normalization, examples, self.model)

    def train_user_code(
        self, build: str, arguments: dict[str, Any] | None = None, **settings: Any
    ) -> History:
        """Run the step with the user's code; `build` is module:function."""
        model = {"build": build, "code": str(self.root / "networks"), "arguments": arguments or {}}
        return self.train(model | settings.pop("model", {}), **settings)

    def load_model(self) -> Any:
        """Load model.keras."""
        return keras.saving.load_model(self.model / "model.keras")

    def output_files(self) -> list[str]:
        """Return the names of the output files of the step, including temporary ones."""
        return sorted(path.name for path in self.root.iterdir() if path.name.startswith(("model", "history")))


@pytest.fixture
def train_env(tmp_path: Path) -> Iterator[TrainEnv]:
    """A new environment; its user code is unloaded after the test."""
    path, modules = sys.path.copy(), set(sys.modules)
    yield TrainEnv(tmp_path)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    keras.saving.get_custom_objects().clear()
