"""The API server's pipelines, versions and experiments."""

import json
from datetime import UTC, datetime
from email.parser import BytesParser
from operator import attrgetter
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import kfp_server_api as kfp
import yaml

from modelyard.pipelines.compile.compiler import LOADER
from tests.integration.backend.server import EXISTS, INVALID, NOT_FOUND, ApiError, BackendServer, Request

V2 = "/apis/v2beta1"


class Pipelines:
    """Pipelines, their versions, and experiments; `specs` has the package of each version by its id."""

    def __init__(self, server: BackendServer) -> None:
        self._server = server
        self.pipelines: dict[str, Any] = {}
        self.versions: dict[str, Any] = {}
        self.experiments: dict[str, Any] = {}
        self.specs: dict[str, list[Any]] = {}
        path = rf"{V2}/pipelines/(?P<pipeline_id>[^/:]+)"
        self.routes = {
            ("POST", f"{V2}/pipelines"): self.create,
            ("GET", f"{V2}/pipelines"): self.list,
            ("GET", rf"{V2}/pipelines/names/(?P<name>[^/]+)"): self.get_by_name,
            ("POST", f"{V2}/pipelines/upload_version"): self.upload_version,
            ("GET", f"{path}/versions"): self.list_versions,
            ("GET", rf"{path}/versions/(?P<version_id>[^/:]+)"): self.get_version,
            ("POST", f"{V2}/experiments"): self.create_experiment,
            ("GET", f"{V2}/experiments"): self.list_experiments,
        }

    def create(self, request: Request) -> Any:
        created = request.read("V2beta1Pipeline")
        created.namespace = created.namespace or None
        _refuse_existing(created, self.pipelines, "name", "namespace")
        created.pipeline_id, created.created_at = str(uuid4()), datetime.now(UTC)
        self.pipelines[created.pipeline_id] = created
        return created

    def list(self, request: Request) -> Any:
        """Respond to kfp.Client.get_pipeline_id, which the benchmark's baseline calls."""
        name = json.loads(request.query["filter"])["predicates"][0]["stringValue"]
        pipelines = [item for item in self.pipelines.values() if name in (item.name, item.display_name)]
        return self._server.page(request, pipelines, "pipelines", "V2beta1ListPipelinesResponse")

    def get_by_name(self, request: Request, name: str) -> Any:
        namespace = request.query.get("namespace") or None
        for pipeline in self.pipelines.values():
            if (pipeline.name, pipeline.namespace) == (name, namespace):
                return pipeline
        raise ApiError(NOT_FOUND, f"ResourceNotFoundError: Pipeline {name} not found")

    def upload_version(self, request: Request) -> Any:
        pipeline_id, name = request.query["pipelineid"], request.query["name"]
        _get(self.pipelines, "Pipeline", pipeline_id)
        new = SimpleNamespace(name=name, pipeline_id=pipeline_id)
        _refuse_existing(new, self.versions, "name", "pipeline_id")
        spec = list(yaml.load_all(_read_file(request), LOADER))
        if "pipelineInfo" not in spec[0]:
            raise ApiError(INVALID, "InvalidInputError: unknown template format")
        created = kfp.V2beta1PipelineVersion(
            pipeline_id=pipeline_id,
            pipeline_version_id=str(uuid4()),
            name=name,
            display_name=name,
            description=request.query.get("description"),
            created_at=datetime.now(UTC),
            pipeline_spec={"pipeline_spec": spec[0], "platform_spec": spec[1]} if spec[1:] else spec[0],
        )
        self.versions[created.pipeline_version_id] = created
        self.specs[created.pipeline_version_id] = spec
        return created

    def list_versions(self, request: Request, pipeline_id: str) -> Any:
        _get(self.pipelines, "Pipeline", pipeline_id)
        versions = [item for item in self.versions.values() if item.pipeline_id == pipeline_id]
        return self._server.page(
            request, versions, "pipeline_versions", "V2beta1ListPipelineVersionsResponse"
        )

    def get_version(self, _: Request, pipeline_id: str, version_id: str) -> Any:
        _get(self.pipelines, "Pipeline", pipeline_id)
        return _get(self.versions, "PipelineVersion", version_id)

    def create_experiment(self, request: Request) -> Any:
        created = request.read("V2beta1Experiment")
        created.namespace = created.namespace or None
        if self._server.multi_user and not created.namespace:
            raise ApiError(INVALID, "InvalidInputError: Namespace is required in multi-user mode")
        _refuse_existing(created, self.experiments, "display_name", "namespace")
        created.experiment_id, created.created_at = str(uuid4()), datetime.now(UTC)
        self.experiments[created.experiment_id] = created
        return created

    def list_experiments(self, request: Request) -> Any:
        namespace = request.query.get("namespace") or None
        experiments = [item for item in self.experiments.values() if item.namespace == namespace]
        return self._server.page(request, experiments, "experiments", "V2beta1ListExperimentsResponse")


def _refuse_existing(created: Any, table: dict[str, Any], *keys: str) -> None:
    """Refuse an object that has the same keys as an object in the table; the first is its name."""
    identity = attrgetter(*keys)
    if identity(created) in map(identity, table.values()):
        raise ApiError(EXISTS, f"Already exist error: The name {identity(created)[0]} already exist")


def _get(table: dict[str, Any], kind: str, key: str) -> Any:
    if key not in table:
        raise ApiError(NOT_FOUND, f"Failed to get it: ResourceNotFoundError: {kind} {key} not found")
    return table[key]


def _read_file(request: Request) -> bytes:
    """Return the file of a form."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    form = BytesParser().parsebytes(head + request.body)
    (part,) = form.get_payload()
    return bytes(part.get_payload(decode=True))
