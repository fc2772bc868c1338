"""The registry of the steps, in the order of the pipeline.

    STEPS["train"].image

To add a step, add a package to components/, a row to this registry, and a task to train_to_serve.py; see
docs/extending.md.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard.components.deploy.spec import DeploySpec
from modelyard.components.evaluate.spec import EvaluateSpec
from modelyard.components.explain.explanation import EXIT_TASK
from modelyard.components.explain.spec import ExplainSpec
from modelyard.components.fingerprint.spec import FingerprintSpec
from modelyard.components.ingest.spec import IngestSpec
from modelyard.components.preprocess.spec import PreprocessSpec
from modelyard.components.settings import Spec
from modelyard.components.train.spec import TrainSpec

SERVER_IMAGE = "serve"
"""The image of the server that deploy rolls out."""
STAGING_IMAGE = "fingerprint"
"""The image that transfers artifacts for the pods of other steps: the smallest with storage clients."""


@dataclass(frozen=True)
class Step:
    """A step of the pipeline.

    Attributes:
        name: one word, because KFP writes `_` as `-`. It is also the name of the package, of the function in
            component.py and, with the suffix `Spec`, of the class of its input.
        spec: the class of its input.
        image: its image in components/Dockerfile.
        accelerator_images: its images with the libraries of an accelerator, by kind of accelerator.
        cached: whether KFP may reuse outputs of an earlier run with the same inputs.
        in_recipe: whether its code is part of the recipe.
        resources: fields of StepResources that override `defaults` of the environment.
        uses_kubernetes: whether it calls the Kubernetes API.
        exit_task: whether it runs after all other steps, even after a failure.
    """

    name: str
    spec: type[Spec]
    image: str
    accelerator_images: Mapping[str, str] = field(default_factory=dict)
    cached: bool = False
    in_recipe: bool = False
    resources: Mapping[str, Any] = field(default_factory=dict)
    uses_kubernetes: bool = False
    exit_task: bool = False

    @property
    def component(self) -> str:
        """The module of its component."""
        return f"modelyard.components.{self.name}.component"

    @property
    def parameter(self) -> str:
        """The pipeline parameter with its spec."""
        return f"{self.name}_spec"


_STEPS = (
    Step("fingerprint", FingerprintSpec, "fingerprint"),
    Step("ingest", IngestSpec, "ingest", cached=True, in_recipe=True),
    Step("preprocess", PreprocessSpec, "preprocess", cached=True, in_recipe=True),
    Step(
        "train",
        TrainSpec,
        "train",
        accelerator_images={"gpu": "train-cuda", "tpu": "train-tpu"},
        cached=True,
        in_recipe=True,
    ),
    Step("evaluate", EvaluateSpec, "evaluate", cached=True, in_recipe=True),
    # no retries: a retry would roll out a version again that was just rolled back
    Step("deploy", DeploySpec, "deploy", resources={"retries": 0}, uses_kubernetes=True),
    Step(EXIT_TASK, ExplainSpec, "deploy", uses_kubernetes=True, exit_task=True),
)
STEPS: Mapping[str, Step] = {step.name: step for step in _STEPS}
IMAGES = (*dict.fromkeys(step.image for step in _STEPS), SERVER_IMAGE)
"""All images without the libraries of an accelerator."""
ACCELERATED_IMAGES = tuple(image for step in _STEPS for image in step.accelerator_images.values())
"""All images with the libraries of an accelerator."""


def deploy_spec(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the spec of deploy from the arguments of a KFP run; empty if modelyard did not start the run.

    The spec is not validated, because another version of modelyard may have started the run.
    """
    return dict(json.loads(parameters.get(STEPS["deploy"].parameter) or "{}"))
