"""Selects the runner of an environment and finds runs.

    local_runner(name, environment)  for `run`: this machine leads the run; its steps are processes or pods
    kfp_runner(scope)                for `submit`: a server of Kubeflow Pipelines
    find_run(scope, name)            a run by its name or id; without a name, the latest
    list_runs(scope)                 the latest runs

The runs that this machine leads need no environment: their folders name it.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from modelyard.components.errors import BackendError, ConfigError, NotFoundError
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.runners import run_folder
from modelyard.pipelines.runners.base import Run, RunInfo
from modelyard.pipelines.runners.local.runner import LocalRunner, Start, list_starts, read_start

if TYPE_CHECKING:
    from modelyard.pipelines.runners.kfp.runner import KfpRunner

ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
"""Of a run on Kubeflow Pipelines."""


@dataclass(frozen=True)
class RunScope:
    """The runs that a command works on, as its options select them.

    Attributes:
        name: the name of the environment; None for the runs that this machine leads.
        endpoint: the URL of Kubeflow Pipelines, if set.
        namespace: the namespace of Kubeflow Pipelines, if set.
        overrides: `key=value` of --set.
    """

    name: str | None = None
    endpoint: str | None = None
    namespace: str | None = None
    overrides: Sequence[str] = ()

    @cached_property
    def environment(self) -> Environment:
        """The environment of that name.

        Raises:
            ConfigError: there is no such environment, or it is not valid.
        """
        if self.name is None:
            raise ConfigError(
                "Kubeflow Pipelines is on a cluster. Set its environment with -e, such as kind."
            )
        given = (
            [f"environment.kfp.namespace={json.dumps(self.namespace)}"] if self.namespace is not None else []
        )
        return load_environment(self.name, [*self.overrides, *given])


def local_runner(name: str, environment: Environment) -> LocalRunner:
    """Return what leads a run from this machine."""
    if not environment.on_cluster:
        return LocalRunner(name, environment, run_folder.home())
    from modelyard.pipelines.runners.pods.runner import PodsRunner

    return PodsRunner(name, environment, run_folder.home())


def kfp_runner(scope: RunScope) -> "KfpRunner":
    """Return the server of an environment; it is asked when it is used.

    Raises:
        ConfigError: the environment is this machine, or a URL is malformed.
    """
    from modelyard.pipelines.runners.kfp.client import find_endpoint
    from modelyard.pipelines.runners.kfp.runner import KfpRunner

    find_endpoint(scope.environment, scope.endpoint)
    return KfpRunner(str(scope.name), scope.environment, scope.endpoint, scope.namespace)


def find_run(scope: RunScope, name: str | None = None) -> Run:
    """Return a run by its name or id; without one, the latest.

    Raises:
        NotFoundError: there is none.
        BackendError: Kubeflow Pipelines does not answer.
    """
    home = run_folder.home()
    if name is None:
        if not (found := list_runs(scope, limit=1)):
            raise NotFoundError(f"There is no run yet in {home / 'runs'}. `modelyard run` makes one.")
        name = found[0].id
    start = read_start(home / "runs" / name) if run_folder.NAME.fullmatch(name) else None
    if start:
        return _runner_for(start).open(name)
    if scope.name and scope.environment.on_cluster:
        return kfp_runner(scope).open(name)
    raise NotFoundError(
        f"There is no run {name!r} in {home / 'runs'}. `modelyard runs list` shows the runs that this "
        "machine leads; name the environment of a run on Kubeflow Pipelines with -e."
    )


def is_run_name(name: str) -> bool:
    """Say whether a word has the form of a run's name or id, and cannot be that of a model."""
    return bool(re.match(rf"{run_folder.NAME.pattern}|{ID}", name))


def list_runs(
    scope: RunScope, model: str | None = None, limit: int = 20, warn: Callable[[str], None] = lambda _: None
) -> Sequence[RunInfo]:
    """Return the latest runs, newest first: those that this machine leads, and those of a server.

    Args:
        scope: whose runs.
        model: only runs of this model.
        limit: maximum number of runs.
        warn: is told which runs are missing, and why.

    Raises:
        BackendError: Kubeflow Pipelines does not answer, and this machine leads no run there.
    """
    found = [*_list_local_runs(scope.name, model, limit, warn)]
    if scope.name and scope.environment.on_cluster:
        try:
            found += kfp_runner(scope).list(model, limit)
        except (BackendError, NotFoundError) as error:
            if not found:
                raise
            warn(str(error))
    return sorted(found, key=lambda one: one.started, reverse=True)[:limit]


def _list_local_runs(
    name: str | None, model: str | None, limit: int, warn: Callable[[str], None]
) -> Iterator[RunInfo]:
    starts = {(one.runner, one.environment): one for _, one in list_starts(run_folder.home(), warn)}
    for start in starts.values():
        if name in (None, start.environment):
            yield from _runner_for(start).list(model, limit)


def _runner_for(start: Start) -> LocalRunner:
    return local_runner(start.environment, start.settings)
