"""Starts and cancels runs of this machine with pods as steps."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from modelyard.components.errors import ClusterError
from modelyard.pipelines.runners.base import Options, RunnerName
from modelyard.pipelines.runners.local.runner import LocalRun, LocalRunner

if TYPE_CHECKING:
    from modelyard.pipelines.config.config import Config
    from modelyard.pipelines.runners.local.execution import LocalExecution


class PodsRun(LocalRun):
    """A run of this machine with pods as steps."""

    def cancel(self) -> None:
        """Cancel the run; if its parent process was killed, delete its pods.

        Raises:
            ConfigError: it has ended, or was started on another machine.
            ClusterError: the cluster does not respond.
        """
        from modelyard.components.kubernetes.cluster import connect
        from modelyard.pipelines.runners.pods.pod import remove_pods

        was_killed = self.on_this_host and not self.is_alive()
        if not (was_killed and remove_pods(connect(self.environment.runs.namespace), self.name)):
            super().cancel()


class PodsRunner(LocalRunner):
    """Executes runs with pods as steps, without Kubeflow Pipelines."""

    kind: ClassVar[RunnerName] = "pods"
    run_class = PodsRun

    def check(self) -> None:
        """See LocalRunner."""
        from modelyard.components.kubernetes.cluster import connect, read_token
        from modelyard.pipelines.runners.pods.pod import STEP_PODS

        connect(self.environment.runs.namespace).list_objects("Pod", labels=STEP_PODS)
        servers = self.environment.serving
        if servers.token_secret:
            with suppress(ClusterError):  # this user may have no permission to read it
                read_token(connect(servers.namespace), servers.token_secret)

    def _create_execution(self, config: "Config", folder: Path, options: Options) -> "LocalExecution":
        from modelyard.pipelines.runners.pods.execution import PodExecution  # imports kfp

        return PodExecution(config, folder, self.environment, options)
