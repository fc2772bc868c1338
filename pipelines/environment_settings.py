"""The sections of an environment."""

from pydantic import Field

from components.settings import Settings
from pipelines.step_resources import Cpu, Memory, StepResources


class Steps(Settings):
    """What single steps ask for, where it is not what `defaults` says."""

    fingerprint: StepResources = Field(default=StepResources(), description="What fingerprint asks for.")
    ingest: StepResources = Field(default=StepResources(), description="What ingest asks for.")
    preprocess: StepResources = Field(default=StepResources(), description="What preprocess asks for.")
    train: StepResources = Field(default=StepResources(), description="What train asks for.")
    evaluate: StepResources = Field(default=StepResources(), description="What evaluate asks for.")
    deploy: StepResources = Field(default=StepResources(), description="What deploy asks for.")


class Runs(Settings):
    """Where the steps run."""

    namespace: str = Field(default="modelyard-runs", description="The namespace of their pods.")
    service_account: str = Field(default="modelyard-run", description="The account of all of them.")


class Servers(Settings):
    """Where the servers run, and what each asks for."""

    namespace: str = Field(default="modelyard-serving", description="The namespace of their pods.")
    service_account: str = Field(default="modelyard-serve", description="The account of all of them.")
    replicas: int = Field(default=1, ge=1, description="Servers of a model when it is deployed first.")
    cpu: Cpu = Field(default="250m", description="Cores that are kept for a server.")
    memory: Memory = Field(default="512Mi", description="Memory of a server, kept for it and its limit.")
    url: str | None = Field(
        default=None,
        description="Address at which clients outside the cluster reach the models, if there is one.",
    )


class Kfp(Settings):
    """The Kubeflow Pipelines that `submit` talks to."""

    endpoint: str | None = Field(default=None, description="Address of its API; none where there is none.")
    namespace: str = Field(default="kubeflow", description="The namespace in which it runs.")
