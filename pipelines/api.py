"""The public Python API: the commands as functions of the package `modelyard`.

    summary = modelyard.run("pets.yaml")                   # on this machine, blocking
    summary.decision, summary.version, summary.metrics["accuracy"]
    model = modelyard.load_model("pets")                   # the champion
    modelyard.predict(model, ["cat.png", "batch.npy"])     # or model.run(array)
    modelyard.deploy("pets", 7, "gke", reason="checked by hand", by="me")
    modelyard.rollback("pets", reason="worse at night", by="me")

Parameters of several functions:

- `config`: the path of a YAML file, a Config of `load_config`, or None for the digits example.
- `environment`: where steps and servers run: `local`, `kind`, `gke`, the name of a file in ./environments, or
  the path of a file. Its store overrides `store.url` of a configuration file, and is the default model store.
- `overrides`: `key=value` with dotted keys, as for --set. With a Config, only those of the section
  `environment` are allowed; pass the others to `load_config`.
- `log`, `warn`: functions that receive progress messages and warnings.

Errors are subclasses of ModelyardError. The message says what is wrong and what to do. An argument of a wrong
type is a ConfigError.
"""

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from modelyard.components.errors import ConfigError, ModelyardError, error_classes
from modelyard.components.store.models import ModelStore
from modelyard.components.store.models import open_store as _open_store
from modelyard.components.store.records import Champion
from modelyard.components.store.settings import Store
from modelyard.pipelines.config.arguments import check_arguments
from modelyard.pipelines.config.config import Config, load, load_section
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.runners.base import Run, RunInfo, RunSummary

if TYPE_CHECKING:
    from rich.console import Console

    from modelyard.components.artifacts import Outcome
    from modelyard.components.deploy.status import RolloutStatus
    from modelyard.pipelines.compile.uploads import Uploads
    from modelyard.pipelines.planning.plan import Plan
    from modelyard.pipelines.planning.planner import PlanRequest
    from modelyard.pipelines.runners.differences import Change
    from modelyard.pipelines.runners.kfp.runner import KfpRun, KfpRunner
    from modelyard.pipelines.runners.kfp.submission import ExistingObjects, Submission
    from modelyard.pipelines.runners.select import RunScope
    from modelyard.pipelines.serving.prediction import ExamplePrediction, Model

__all__ = [
    "Config",
    "ModelStore",
    "ModelyardError",
    "Run",
    "RunInfo",
    "RunSummary",
    "abort_rollout",
    "compile_pipeline",
    "deploy",
    "list_runs",
    "load_config",
    "load_model",
    "open_run",
    "open_store",
    "plan",
    "predict",
    "promote",
    "promote_candidate",
    "rollback",
    "rollout_status",
    "run",
    "serve",
    "step_specs",
    "submit",
]

ConfigSource = Config | Path | str | None
Notify = Callable[[str], None]
DEFAULT_OPTIONS: dict[str, bool | int] = {"skip_unchanged": False, "force_after": 0}


@check_arguments
def load_config(
    path: Path | str | None = None, overrides: Sequence[str] = (), environment: str = "local"
) -> Config:
    """Return the validated configuration of a file; without a file, that of the digits example.

    The store of the environment, if it has one, overrides `store.url` of the file.

    Raises:
        ConfigError: lists every error with its line, the value and the remedy.
    """
    store = load_environment(environment, overrides).model_store()
    return load(Path(path) if path is not None else None, overrides, store=store)


@check_arguments
def run(
    config: ConfigSource = None,
    environment: str = "local",
    overrides: Sequence[str] = (),
    *,
    skip_unchanged: bool = False,
) -> RunSummary:
    """Run the pipeline in this process and return the result when it ends.

    With `skip_unchanged`, the run ends without training if the champion has the same data, configuration and
    code; its decision is `unchanged`.

    Raises:
        ModelyardError: the run cannot start, or a step failed; the class is that of the step's error.
    """
    summary = finish(start(config, environment, overrides, {"skip_unchanged": skip_unchanged}))
    if summary.failure:
        raise error_classes().get(summary.failure.kind, ModelyardError)(summary.failure.message)
    return summary


@check_arguments
def plan(
    config: ConfigSource = None,
    environment: str = "local",
    overrides: Sequence[str] = (),
    request: "PlanRequest | None" = None,
    *,
    log: Notify = lambda _: None,
    warn: Notify = lambda _: None,
) -> "Plan":
    """Return the plan of a run: the memory, time, storage and cost, and whether the run can succeed.

    `request` is a `modelyard.pipelines.planning.planner.PlanRequest` with the options of `modelyard plan`; by
    default, nothing is measured.

    Raises:
        ConfigError: the configuration or the environment is invalid, or the data must be downloaded.
    """
    from modelyard.pipelines.planning import planner
    from modelyard.pipelines.runners import run_folder

    env = load_environment(environment, overrides)
    config, request = _resolve_config(config, overrides, environment), request or planner.PlanRequest()
    return planner.make_plan(config, env, environment, request, run_folder.home(), log, warn)


@check_arguments
def submit(
    config: ConfigSource = None,
    environment: str = "kind",
    overrides: Sequence[str] = (),
    *,
    endpoint: str | None = None,
    namespace: str | None = None,
    skip_unchanged: bool = False,
) -> Run:
    """Start a run on Kubeflow Pipelines, after the checks of `modelyard submit`, and return it.

    `Run.result` waits for the end of the run. `endpoint` and `namespace` are those of Kubeflow Pipelines, by
    default from the environment. `skip_unchanged` is that of `run`.

    Raises:
        ConfigError: the configuration cannot run in this environment.
        PlanError: a step fits on no node, or the last plan predicts a failure.
        BackendError: Kubeflow Pipelines does not respond or refuses the run.
    """
    from modelyard.pipelines.runners.select import RunScope

    scope = RunScope(environment, endpoint, namespace, overrides)
    return prepare_submission(scope, config, {"skip_unchanged": skip_unchanged}).send()


@check_arguments
def compile_pipeline(
    file: Path | str, config: ConfigSource = None, environment: str = "local", overrides: Sequence[str] = ()
) -> None:
    """Compile the pipeline to a YAML file of KFP, with the configuration as default arguments.

    The environment determines the image, resources and node of each step.
    """
    from modelyard.pipelines.compile.compiler import compile_to

    env = load_environment(environment, overrides)
    compile_to(_resolve_config(config, overrides, environment), Path(file), env)


@check_arguments
def step_specs(
    config: ConfigSource = None, environment: str = "local", overrides: Sequence[str] = ()
) -> dict[str, str]:
    """Return the argument `spec` of each step by the name of the step, for use in other pipelines."""
    from modelyard.pipelines.compile.compiler import create_specs

    specs = create_specs(
        _resolve_config(config, overrides, environment), load_environment(environment, overrides)
    )
    return {step: spec.to_json() for step, spec in specs.items()}


@check_arguments
def list_runs(
    environment: str | None = None,
    model: str | None = None,
    limit: int = 20,
    *,
    endpoint: str | None = None,
    namespace: str | None = None,
    warn: Notify = lambda _: None,
) -> Sequence[RunInfo]:
    """Return the latest runs, at most `limit`, newest first; with `model`, only the runs of that model.

    Without an environment, these are the runs that `modelyard run` started on this machine. `endpoint` and
    `namespace` are those of `submit`.

    Raises:
        ConfigError: `limit` is negative.
    """
    from modelyard.pipelines.runners import select

    if limit < 0:
        raise ConfigError(f"limit is {limit} and must be at least 0.")
    return select.list_runs(select.RunScope(environment, endpoint, namespace), model, limit, warn)


@check_arguments
def open_run(
    name: str | None = None,
    environment: str | None = None,
    *,
    endpoint: str | None = None,
    namespace: str | None = None,
) -> Run:
    """Return a run by its name or ID, by default the latest; the other parameters are those of `list_runs`.

    Raises:
        NotFoundError: there is no such run.
    """
    from modelyard.pipelines.runners import select

    return select.find_run(select.RunScope(environment, endpoint, namespace), name)


@check_arguments
def open_store(url: str | None = None, environment: str = "local") -> ModelStore:
    """Return a model store.

    `url` is a folder, gs://bucket/prefix, or the URL of an installed storage; the default is the store of the
    environment. `ModelStore.promote` does not verify the version; `modelyard.promote` does.

    Raises:
        ConfigError: no storage supports the URL.
        StoreError: there are no credentials for it.
    """
    return _open_store(load_store_section(url, environment))


@check_arguments
def promote(
    name: str,
    version: int,
    *,
    reason: str,
    by: str,
    store_url: str | None = None,
    environment: str = "local",
    log: Notify = lambda _: None,
) -> Champion:
    """Make a version the champion, after a server on this machine has loaded and verified it.

    `reason` and the user `by` are recorded in the history. `store_url` is the `url` of `open_store`. Servers
    on a cluster are unchanged until the next `deploy`.

    Raises:
        DeployError: a file is damaged, the model cannot be loaded, or its golden requests fail.
        NotFoundError: there is no such version.
    """
    from modelyard.components.deploy.verification import pin_version
    from modelyard.pipelines.serving.platforms import find_controller

    section = load_store_section(store_url, environment)
    controller = find_controller(name, "local", by, version=version, store=section, log=log)
    return controller.promote(pin_version(controller.models, name, version), reason)


@check_arguments
def rollback(
    name: str,
    to: int | None = None,
    *,
    reason: str,
    by: str,
    store_url: str | None = None,
    environment: str = "local",
    log: Notify = lambda _: None,
) -> Champion:
    """Roll back to version `to`, by default the previous champion, after a server has loaded and verified it.

    On a cluster, rolls the version out from the store of the environment, so `store_url` cannot be set. The
    other parameters are those of `promote`.

    Raises:
        ConfigError: `store_url` is set and the environment is a cluster.
        DeployError: a file is damaged, the model cannot be loaded, or its golden requests fail.
        NotFoundError: there is no earlier champion, or no such version.
    """
    from modelyard.pipelines.serving.platforms import find_controller

    section = None
    if not load_environment(environment).on_cluster:
        section = load_store_section(store_url, environment)
    elif store_url is not None:
        raise ConfigError(f"The environment {environment} has its own store: omit the store {store_url}.")
    controller = find_controller(name, environment, by, store=section)
    version = to or controller.models.require_champion(name).previous  # whose rollout settings are used
    controller = find_controller(name, environment, by, log=log, version=version, store=section)
    return controller.rollback(to, reason)


@check_arguments
def deploy(
    name: str,
    version: int,
    environment: str,
    overrides: Sequence[str] = (),
    *,
    reason: str,
    by: str,
    log: Notify = lambda _: None,
) -> "Outcome":
    """Verify a version, run the canary analysis on a cluster, then promote it or remove its servers.

    `overrides` are keys of the sections rollout, serving and environment, such as
    `rollout.canary_share=0.2`. Other parameters are those of `promote`. The outcome has `version`, `decision`
    and `reason`.

    Raises:
        DeployError: the version was not promoted; the message has the reason and the served version.
        NotFoundError: there is no such version.
        ClusterError: the cluster refuses a request or does not respond.
    """
    from modelyard.components.deploy.verification import pin_version
    from modelyard.pipelines.serving.platforms import find_controller

    controller = find_controller(
        name, environment, by, overrides=overrides, log=log, version=version, needs_image=True
    )
    return controller.roll_out(pin_version(controller.models, name, version), None, reason)


@check_arguments
def rollout_status(
    name: str,
    environment: str = "local",
    *,
    server_url: str | None = None,
    token_file: Path | str | None = None,
    ca: Path | str | None = None,
) -> "RolloutStatus":
    """Return the servers of a model, its rollout, and the reason if the champion is not served.

    `server_url` is the URL of a server, `token_file` a file whose first line is the bearer token, and `ca` a
    PEM file with the CA certificates of the server. The defaults are in the section `serving` of the
    champion. On a cluster, these parameters cannot be set.

    Raises:
        NotFoundError: there is no such model.
        ServeError: no server of the model responds at `server_url`.
        ClusterError: the cluster refuses a request or does not respond.
    """
    from modelyard.components.deploy.platforms.base import RunningServer
    from modelyard.components.deploy.status import rollout_status
    from modelyard.pipelines.serving.platforms import find_controller

    files = (str(file) if file else None for file in (token_file, ca))
    controller = find_controller(name, environment, "", server=RunningServer(server_url, *files))
    status = rollout_status(controller.platform, controller.models)
    if not (status.champion or status.stable or status.candidate):
        controller.models.check_model(name)
    return status


@check_arguments
def promote_candidate(
    name: str, environment: str, *, reason: str, by: str, log: Notify = lambda _: None
) -> "Outcome":
    """End the canary analysis of a rollout and promote its candidate, after verifying it again.

    The parameters and the outcome are those of `deploy`.

    Raises:
        DeployError: there is no candidate, or it fails verification.
        ClusterError: the cluster refuses a request or does not respond.
    """
    from modelyard.pipelines.serving.platforms import find_controller

    controller = find_controller(name, environment, by)
    if candidate := controller.platform.status().candidate:
        controller = find_controller(name, environment, by, log=log, version=candidate.version)
    return controller.promote_candidate(reason)


@check_arguments
def abort_rollout(name: str, environment: str, *, reason: str, by: str) -> int | None:
    """Remove the candidate of a rollout; return its version, or None if there is no candidate.

    `deploy`, or the run that is rolling out the candidate, ends with the decision `hold`.

    Raises:
        NotFoundError: there is no such model.
        ClusterError: the cluster refuses a request or does not respond.
    """
    from modelyard.pipelines.serving.platforms import find_controller

    controller = find_controller(name, environment, by)
    version = controller.abort(reason)
    if version is None:
        controller.models.check_model(name)
    return version


@check_arguments
def serve(
    name: str,
    version: int | None = None,
    *,
    store_url: str | None = None,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Serve a model over HTTP until SIGTERM or SIGINT.

    Without `version`, the server follows the champion. When it is ready, it writes a JSON line with its URL
    to stdout. This function must be called in the main thread.

    `store_url` is the `url` of `open_store`. `settings` are keys of the section `serving`, such as
    `{"port": 8080}`; they override those of the run that trained the version.

    Raises:
        ConfigError: this is not the main thread, a setting is invalid, or a token, certificate or key file
            cannot be used.
        NotFoundError: there is no such version, or no champion.
        ServeError: the port is not available, or the version cannot be loaded.
        StoreError: the store cannot be read, or the version is damaged.
    """
    from modelyard.components.serve.server import serve
    from modelyard.components.serve.settings import Serving
    from modelyard.pipelines.serving.platforms import load_recorded_manifest, load_recorded_section

    if threading.current_thread() is not threading.main_thread():
        raise ConfigError(
            "serve handles signals and needs the main thread. Call it there, or in another process."
        )
    store = load_store_section(store_url)
    manifest = load_recorded_manifest(_open_store(store), name, version)
    options = {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()}
    serve(name, store, load_recorded_section("serving", Serving, (), manifest, **options), version)


@check_arguments
def load_model(
    name: str,
    version: int | None = None,
    *,
    store_url: str | None = None,
    environment: str = "local",
    server_url: str | None = None,
    token_file: Path | str | None = None,
    ca: Path | str | None = None,
) -> "Model":
    """Return a version for predictions, by default the champion.

    `Model.run(batch)` takes examples (n, *shape) and returns float32 predictions (n, values). It raises
    DataError if the shape is wrong, or if the dtype of the model cannot represent the values.
    `Model.signature` has the shape and dtype of an example and the names of the values.

    With `server_url`, the server at that URL predicts; `token_file` and `ca` are those of `rollout_status`.
    If the environment is a cluster and `store_url` is not set, the model's server on the cluster predicts.
    Otherwise, this process loads the version from the store with ONNX Runtime.

    Raises:
        NotFoundError: there is no such version, or no champion.
        ServeError: the server does not respond, or has no such model.
    """
    from modelyard.pipelines.serving.prediction import LocalModel, RemoteModel

    env = load_environment(environment)
    if server_url:
        from modelyard.components.server import HttpServer, read_tokens

        token = read_tokens(str(token_file), "--token-file")[0] if token_file else None
        server = HttpServer(server_url.rstrip("/"), proxies=True, token=token, ca=str(ca) if ca else None)
        return RemoteModel(server, name, version)
    if token_file or ca:
        raise ConfigError("A token file or CA certificates require the URL of a server. Set the URL.")
    if env.on_cluster and store_url is None:
        from modelyard.pipelines.serving.platforms import find_server

        return RemoteModel(find_server(name, env), name, version)
    return LocalModel(open_store(store_url, environment), name, version)


@check_arguments
def predict(model: "Model", files: Iterable[Path | str]) -> "list[ExamplePrediction]":
    """Return a prediction for each example in files, in order.

    The files are images, or .npy files with one or more examples. A prediction has `example` (the file, with
    an index if it has several examples), `text` and `note` (the class and its probability, or the predicted
    values) and `values` (each value by its name).

    Raises:
        ConfigError: `model` is not a model of `load_model`.
        DataError: a file is missing, or does not fit the signature of the model.
    """
    from modelyard.pipelines.serving import prediction

    if not isinstance(model, prediction.LocalModel | prediction.RemoteModel):
        raise ConfigError(f"model is {model!r}; pass a model that load_model returned.")
    return prediction.predict(model, [Path(file) for file in files])


# For the command line: not in __all__ ------------------------------------------------------------


def start(
    config: ConfigSource = None,
    environment: str = "local",
    overrides: Sequence[str] = (),
    options: dict[str, bool | int] = DEFAULT_OPTIONS,
    console: "Console | None" = None,
) -> Run:
    """Return a run that `finish` executes in this process; `Run.events` has its progress.

    `options` are arguments of the pipeline: `skip_unchanged`, and `force_after` in seconds. `console` shows
    the progress of uploads.
    """
    console = console or _quiet_console()
    with console.status("starting"):
        from modelyard.pipelines.runners import select

        env = load_environment(environment, overrides)
        config = _resolve_config(config, overrides, environment)
        runner = select.create_local_runner(environment, env)
        runner.check()
        from modelyard.pipelines.compile import lean_kfp

        lean_kfp.load()
        from modelyard.pipelines.compile.uploads import prepare_uploads
        from modelyard.pipelines.planning import comparison

        uploads = prepare_uploads(config, env)
    uploads.send(console)
    plan_key = comparison.find_plan_key(uploads.config, env)
    run = runner.start(uploads.config, DEFAULT_OPTIONS | options)
    run.plan_key = plan_key
    return run


def finish(run: Run, leave_stuck: bool = False) -> RunSummary:
    """Execute a run, or follow a run of another process; return the result.

    Adds the plan of the run to its report. With `leave_stuck`, the run is not cancelled if one of its pods
    cannot start.
    """
    from modelyard.pipelines.planning import comparison

    summary = run.result(leave_stuck)
    comparison.add_plan_to_report(run.folder, run.plan_key, summary)
    return summary


@dataclass(frozen=True)
class PreparedSubmission:
    """A checked submission that is not sent yet.

    Attributes:
        server: the server of Kubeflow Pipelines.
        uploads: local data and code that the run needs.
        submission: the pipeline and its arguments.
        existing_objects: the objects of the submission that the server already has.
        last_run: the name of the model's last run, if any.
        changes: the differences from the last run.
        notes: warnings of the preflight checks.
    """

    server: "KfpRunner"
    uploads: "Uploads"
    submission: "Submission"
    existing_objects: "ExistingObjects"
    last_run: str | None
    changes: "tuple[Change, ...]"
    notes: Sequence[str]

    def send(self, console: "Console | None" = None) -> "KfpRun":
        """Upload missing files, start the run and return it; `console` shows the progress of uploads."""
        from modelyard.pipelines.planning import comparison

        plan_key = comparison.find_plan_key(self.uploads.config, self.server.environment)
        self.uploads.send(console or _quiet_console())
        run = self.server.submit(self.submission, self.existing_objects)
        run.plan_key = plan_key
        return run


def prepare_submission(
    scope: "RunScope",
    config: ConfigSource = None,
    options: dict[str, bool | int] = DEFAULT_OPTIONS,
    budget: float | None = None,
    skip_checks: bool = False,
) -> PreparedSubmission:
    """Check a run on the server of `scope` and return its submission.

    `options` are those of `start`. `budget` is the maximum cost in USD, according to the last plan. With
    `skip_checks`, the last plan and the nodes of the cluster are not checked.
    """
    from modelyard.pipelines.compile.preflight import check_pipeline
    from modelyard.pipelines.runners.kfp.submission import compare_with_last_run, find_existing, prepare

    server, uploads = find_server_and_uploads(scope, config, budget, skip_checks)
    submission = prepare(uploads.config, server.environment, DEFAULT_OPTIONS | options)
    notes = check_pipeline(submission.arguments, server.environment)
    objects = find_existing(server.backend, submission)
    last_run, changes = compare_with_last_run(server.backend, submission, objects)
    return PreparedSubmission(server, uploads, submission, objects, last_run, changes, notes)


def find_server_and_uploads(
    scope: "RunScope", config: ConfigSource, budget: float | None, skip_checks: bool
) -> "tuple[KfpRunner, Uploads]":
    """Return the server of `scope`, and the configuration with its uploads; see `prepare_submission`."""
    from modelyard.pipelines.compile.uploads import prepare_uploads
    from modelyard.pipelines.planning.feasibility import check_feasibility
    from modelyard.pipelines.runners import run_folder, select

    server = select.create_kfp_runner(scope)  # fails early if the environment has none
    uploads = prepare_uploads(_resolve_config(config, scope.overrides, server.name), server.environment)
    if not skip_checks:
        check_feasibility(uploads.config, server.environment, server.name, run_folder.home(), budget)
    return server, uploads


def load_store_section(url: str | None, environment: str = "local") -> Store:
    """Return the section `store` without a configuration; see `open_store`."""
    overrides = [f"store.url={json.dumps(url)}"] if url is not None else []
    return load_section("store", Store, overrides, defaults=load_environment(environment).model_store())


def _resolve_config(source: ConfigSource, overrides: Sequence[str], environment: str) -> Config:
    if not isinstance(source, Config):
        return load_config(source, overrides, environment)
    unused = [override for override in overrides if not override.startswith("environment.")]
    if unused:
        raise ConfigError(f"The overrides {unused} do not change a Config: pass them to load_config.")
    return source


def _quiet_console() -> "Console":
    from rich.console import Console

    return Console(quiet=True)
