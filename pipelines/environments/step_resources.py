"""What a step asks of a cluster: processor, memory, accelerator, place, time."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field

from modelyard.components.settings import Settings
from modelyard.pipelines.environments.accelerators import Accelerator, Toleration

SPOT = "cloud.google.com/gke-spot"


def _as_text(value: Any) -> Any:
    """Return a number as Kubernetes writes it: `cpu: 2` is as good as `cpu: "2"`."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Cpu = Annotated[str, BeforeValidator(_as_text), Field(pattern=r"^([1-9]\d*m|[1-9]\d*|\d+\.\d+)$")]
Memory = Annotated[str, Field(pattern=r"^[1-9]\d*(Mi|Gi|Ti|M|G|T)$")]


class StepResources(Settings):
    """What one step asks for; under `defaults`, what each step does unless it says otherwise."""

    cpu: Cpu | None = Field(
        default=None,
        description='Cores that are kept for it, as "2" or 500m; it may use idle ones beyond.',
    )
    memory: Memory | None = Field(
        default=None,
        description="Memory that is kept for it and that it cannot exceed, as 4Gi.",
    )
    ephemeral_storage: Memory | None = Field(
        default=None,
        description="Disk for its temporary files, as 20Gi; beyond, it is stopped.",
    )
    accelerator: Accelerator | None = Field(default=None, description="GPUs or TPU chips.")
    node_selector: dict[str, str] = Field(
        default_factory=dict,
        description="Labels that its node must have, beside those of accelerator and spot.",
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(),
        strict=False,
        description="Taints that it tolerates, beside those of accelerator and spot.",
    )
    spot: bool = Field(
        default=False,
        description="Run on GKE's Spot nodes: cheaper, and taken away at any time; give retries.",
    )
    timeout: int | None = Field(default=None, ge=1, description="Seconds after which an attempt is stopped.")
    retries: int = Field(
        default=0,
        ge=0,
        description="How often it is tried again; deploy, only as often as it says itself, not `defaults`.",
    )

    def over(self, defaults: Self) -> Self:
        """Return these resources, with `defaults` where nothing is said."""
        return defaults.model_copy(update={key: getattr(self, key) for key in self.model_fields_set})

    def selector(self) -> dict[str, str]:
        """Return all labels that the node must have."""
        accelerator = self.accelerator.node_selector() if self.accelerator else {}
        return {**accelerator, **({SPOT: "true"} if self.spot else {}), **self.node_selector}

    def tolerated(self) -> tuple[Toleration, ...]:
        """Return all taints that it tolerates."""
        accelerator = (self.accelerator.toleration(),) if self.accelerator else ()
        spot = (Toleration(key=SPOT, operator="Equal", value="true"),) if self.spot else ()
        return (*accelerator, *spot, *self.tolerations)
