"""A compiled pipeline, as Kubeflow Pipelines reads it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Task:
    """A task, the group that it is in (None: the pipeline itself), and the DAG that it stands for, if any."""

    name: str
    spec: Any
    within: "Task | None"
    siblings: Any
    dag: Any

    @property
    def place(self) -> str:
        """The names of the groups around it, and its own."""
        return self.beside(self.name)

    def beside(self, name: str) -> str:
        """Return the place of a task in the same group."""
        return f"{self.within.place}/{name}" if self.within else name


@dataclass(frozen=True)
class Compiled:
    """The two documents of a package: the pipeline's messages, and its platform's values."""

    spec: Any
    platform: dict[str, Any]

    @classmethod
    def of(cls, package: bytes) -> "Compiled":
        """Return what a package holds."""
        spec, *platform = yaml.load_all(package, LOADER)
        return cls(json_format.ParseDict(spec, PipelineSpec()), platform[0] if platform else {})

    @property
    def kubernetes(self) -> dict[str, Any]:
        """What the platform document says about Kubernetes."""
        found: dict[str, Any] = self.platform.get("platforms", {}).get("kubernetes", {})
        return found

    def tasks(self) -> Iterator[Task]:
        """Yield every task, a group before what is in it."""
        yield from self._tasks(self.spec.root.dag, None)

    def containers(self) -> Iterator[tuple[str, dict[str, Any] | None]]:
        """Yield each executor's name and container; None for one that is no container."""
        deployment = json_format.MessageToDict(self.spec.deployment_spec)
        for label, executor in sorted(deployment["executors"].items()):
            yield label.removeprefix("exec-"), executor.get("container")

    def pod(self, step: str) -> dict[str, Any]:
        """Return what the platform document says about a step's pod."""
        executors = self.kubernetes.get("deploymentSpec", {}).get("executors", {})
        found: dict[str, Any] = executors.get(f"exec-{step}", {})
        return found

    def _tasks(self, dag: Any, within: Task | None) -> Iterator[Task]:
        for name, spec in sorted(dag.tasks.items()):
            component = self.spec.components[spec.component_ref.name]
            inner = component.dag if component.HasField("dag") else None
            task = Task(name, spec, within, dag.tasks, inner)
            yield task
            if inner is not None:
                yield from self._tasks(inner, task)


def program(container: dict[str, Any]) -> list[str]:
    """Return the command and the arguments of a container."""
    return [*container.get("command", ()), *container.get("args", ())]


def source(container: dict[str, Any]) -> str:
    """Return the Python that a lightweight component's container carries; empty for another container."""
    parts = program(container)
    if not any("kfp.dsl.executor_main" in part for part in parts):
        return ""
    return next((part for part in parts if "def " in part and "import kfp" in part), "")


def producer(task: Task, channel: str) -> tuple[str, str] | None:
    """Return the task and the output that an input parameter comes from; None for the pipeline's own."""
    at: Task | None = task
    while at is not None:
        given = at.spec.inputs.parameters.get(channel)
        if given is None:
            return None
        kind = given.WhichOneof("kind")
        if kind == "task_output_parameter":
            found = given.task_output_parameter
            return found.producer_task, found.output_parameter_key
        if kind != "component_input_parameter":
            return None
        channel, at = given.component_input_parameter, at.within
    return None
