"""Selects the runner of an environment, and finds runs.

    create_local_runner(name, environment)  for `run`: this machine executes the run
    create_kfp_runner(scope)                for `submit`: a server of Kubeflow Pipelines executes the run
    find_run(scope, name)                   a run by its name or ID; without a name, the latest
    list_runs(scope)                        the latest runs

The environment of a run of this machine is read from its `start.json`.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from modelyard.components.errors import BackendError, ConfigError, NotFoundError
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.runners import run_folder
from modelyard.pipelines.runners.base import KFP_RUN_ID, Run, RunInfo
from modelyard.pipelines.runners.local.runner import LocalRunner, list_start_records, read_start_record

if TYPE_CHECKING:
    from modelyard.pipelines.runners.kfp.runner import KfpRunner


@dataclass(frozen=True)
class RunScope:
    """The options of a command that select runs.

    `environment_name` is None for the runs of this machine. `endpoint` and `namespace` are those of Kubeflow
    Pipelines, if set; `overrides` are the `key=value` of --set.
    """

    environment_name: str | None = None
    endpoint: str | None = None
    namespace: str | None = None
    overrides: Sequence[str] = ()

    @cached_property
    def environment(self) -> Environment:
        """The environment; ConfigError if it does not exist or is invalid."""
        if self.environment_name is None:
            raise ConfigError(
                "Kubeflow Pipelines is on a cluster. Select its environment with -e, such as -e kind."
            )
        overrides = [*self.overrides]
        if self.namespace is not None:
            overrides.append(f"environment.kfp.namespace={json.dumps(self.namespace)}")
        return load_environment(self.environment_name, overrides)


def create_local_runner(name: str, environment: Environment) -> LocalRunner:
    """Return the runner whose runs this machine executes."""
    if not environment.on_cluster:
        return LocalRunner(name, environment, run_folder.home())
    from modelyard.pipelines.runners.pods.runner import PodsRunner

    return PodsRunner(name, environment, run_folder.home())


def create_kfp_runner(scope: RunScope) -> "KfpRunner":
    """Return the runner of a server, without a request.

    Raises:
        ConfigError: the environment is this machine, or a URL is malformed.
    """
    from modelyard.pipelines.runners.kfp.client import find_endpoint
    from modelyard.pipelines.runners.kfp.runner import KfpRunner

    find_endpoint(scope.environment, scope.endpoint)
    return KfpRunner(str(scope.environment_name), scope.environment, scope.endpoint, scope.namespace)


def find_run(scope: RunScope, name: str | None = None) -> Run:
    """Return a run by its name or ID; without a name, the latest.

    Raises:
        NotFoundError: there is no such run.
        BackendError: Kubeflow Pipelines does not respond.
    """
    home = run_folder.home()
    if name is None:
        if not (latest := list_runs(scope, limit=1)):
            raise NotFoundError(f"There is no run yet in {home / 'runs'}. `modelyard run` starts one.")
        name = latest[0].id
    start = read_start_record(home / "runs" / name) if run_folder.NAME.fullmatch(name) else None
    if start:
        return create_local_runner(start.environment, start.settings).open(name)
    if scope.environment_name and scope.environment.on_cluster:
        return create_kfp_runner(scope).open(name)
    raise NotFoundError(
        f"There is no run {name!r} in {home / 'runs'}. `modelyard runs list` shows the runs of this "
        "machine; for a run on Kubeflow Pipelines, set its environment with -e."
    )


def is_run_name(name: str) -> bool:
    """Return whether an argument is the name or ID of a run, and not the name of a model."""
    return bool(re.match(rf"{run_folder.NAME.pattern}|{KFP_RUN_ID.pattern}", name))


def list_runs(
    scope: RunScope, model: str | None = None, limit: int = 20, warn: Callable[[str], None] = lambda _: None
) -> Sequence[RunInfo]:
    """Return the latest runs of a model, or of all models, newest first.

    Includes the runs of this machine and those of the server; `warn` receives a message about runs
    that cannot be listed.

    Raises:
        BackendError: Kubeflow Pipelines does not respond, and this machine has no run there.
    """
    starts = {
        (start.runner, start.environment): start for _, start in list_start_records(run_folder.home(), warn)
    }
    runs: list[RunInfo] = []
    for start in starts.values():
        if scope.environment_name in (None, start.environment):
            runs += create_local_runner(start.environment, start.settings).list(model, limit)
    if scope.environment_name and scope.environment.on_cluster:
        try:
            runs += create_kfp_runner(scope).list(model, limit)
        except (BackendError, NotFoundError) as error:
            if not runs:
                raise
            warn(str(error))
    return sorted(runs, key=lambda run: run.started, reverse=True)[:limit]
