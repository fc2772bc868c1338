"""Makes the features that training would read, with the run's own steps and its cache.

What is prepared for a plan is not prepared again by the run after it.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kfp import dsl

from modelyard.components.artifacts import Record
from modelyard.components.fingerprint.identity import data_fingerprint
from modelyard.components.ingest.component import ingest
from modelyard.components.preprocess.component import preprocess
from modelyard.pipelines.compile.compiler import local_images
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.runners import runs
from modelyard.pipelines.runners.local import LocalRun


class Prepared(Record):
    """Where the features are, and how long each step took; a step from the cache took no time of its own."""

    features: Path
    seconds: dict[str, float | None]


def prepare(config: Config) -> Prepared:
    """Run ingest and preprocess on this machine, or take what the cache has of them.

    Raises:
        ModelyardError: what a step ended with.
    """
    with runs.start(runs.home()) as folder:
        work = _Preparation(config, folder)
        try:
            features = work.features()
        finally:
            (folder / "lifeline").unlink()  # without it, and without a summary, it does not count as a run
        took = {one.name: None if one.cached else one.seconds for one in work.log.steps()}
    if folder not in features.parents:  # everything came from the cache
        shutil.rmtree(folder)
    return Prepared(features=features, seconds={name: took[name] for name in ("ingest", "preprocess")})


class _Preparation(LocalRun):
    """The first steps of a run."""

    def features(self) -> Path:
        """Run them and return the folder."""
        self._execute()
        return Path(self._task.output.path)

    def _pipeline(self) -> Callable[..., Any]:
        images, found = local_images(), data_fingerprint(self.config.source())

        @dsl.pipeline(name="prepare")
        def prepare(source: str, preparation: str, fingerprint: str) -> dsl.Dataset:
            ingested = ingest(source=source, fingerprint=fingerprint)
            ingested.set_container_image(images["ingest"])
            prepared = preprocess(raw=ingested.outputs["raw"], preparation=preparation)
            prepared.set_container_image(images["preprocess"])
            return prepared.outputs["features"]

        def start(source: str, preparation: str, **_: Any) -> None:
            self._task = prepare(source=source, preparation=preparation, fingerprint=found)

        return start
