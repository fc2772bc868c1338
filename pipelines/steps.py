"""The steps: a row for each, in the order of the pipeline. This is the only list of the steps.

    STEPS["train"].image

To add a step: its folder in components/ (`component.py`, `spec.py` and its work), a row here, and its place
in the flow (train_to_serve.py). docs/extending.md shows it.
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
"""The image that moves artifacts for the pods of other steps: the smallest with the clients of storages."""


@dataclass(frozen=True)
class Step:
    """A step of the pipeline.

    Attributes:
        name: its name, one word (KFP writes `_` as `-`); also that of its folder and of the function in its
            component.py. Its spec is called after it, as `TrainSpec`: its image knows only the name.
        spec: what it is told.
        image: the image of components/Dockerfile that holds it.
        accelerated: the images that hold it with the libraries of an accelerator, by the kind of accelerator.
        cached: whether its outputs may come from an earlier run with the same inputs.
        decisive: whether its code decides what a version is.
        resources: what it asks for instead of the environment's `defaults`; keys of StepResources.
        distributions: what its libraries import that itself does not, and that decides the result.
        kubernetes: whether it calls the API of Kubernetes.
        exit_task: whether it runs when the others have ended, and says how.
    """

    name: str
    spec: type[Spec]
    image: str
    accelerated: Mapping[str, str] = field(default_factory=dict)
    cached: bool = False
    decisive: bool = False
    resources: Mapping[str, Any] = field(default_factory=dict)
    distributions: tuple[str, ...] = ()
    kubernetes: bool = False
    exit_task: bool = False

    @property
    def component(self) -> str:
        """The module of its KFP function."""
        return f"modelyard.components.{self.name}.component"

    @property
    def parameter(self) -> str:
        """The parameter of the pipeline that holds its spec."""
        return f"{self.name}_spec"


_ROWS = (
    Step("fingerprint", FingerprintSpec, "fingerprint"),
    Step("ingest", IngestSpec, "ingest", cached=True, decisive=True),
    Step("preprocess", PreprocessSpec, "preprocess", cached=True, decisive=True),
    Step(
        "train",
        TrainSpec,
        "train",
        accelerated={"gpu": "train-cuda", "tpu": "train-tpu"},
        cached=True,
        decisive=True,
        distributions=("tf2onnx",),  # Keras exports with it
    ),
    Step("evaluate", EvaluateSpec, "evaluate", cached=True, decisive=True),
    # another attempt would put a version before clients again that was just rolled back
    Step("deploy", DeploySpec, "deploy", resources={"retries": 0}, kubernetes=True),
    Step(EXIT_TASK, ExplainSpec, "deploy", kubernetes=True, exit_task=True),
)
STEPS: Mapping[str, Step] = {step.name: step for step in _ROWS}
IMAGES = (*dict.fromkeys(step.image for step in _ROWS), SERVER_IMAGE)
"""The images that a pipeline needs."""
ACCELERATED_IMAGES = tuple(image for step in _ROWS for image in step.accelerated.values())
"""The images with the libraries of an accelerator."""


def deploy_spec(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the spec of deploy from the parameters of a run on a server; empty if it has none.

    The run may be of another version of modelyard, so nothing of it is checked.
    """
    return dict(json.loads(parameters.get(STEPS["deploy"].parameter) or "{}"))
