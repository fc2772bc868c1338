"""Everything of an environment that may go, in the order in which it goes: what uses before what is used."""

from collections.abc import Iterator

from modelyard.pipelines.maintenance import (
    backend_runs,
    checkpoints,
    images,
    local_runs,
    pod_runs,
    uploads,
    versions,
)
from modelyard.pipelines.maintenance.place import Place
from modelyard.pipelines.maintenance.thing import Thing


def find(place: Place) -> list[Thing]:
    """Return what there is, with a reason for what stays.

    Raises:
        BackendError: Kubeflow Pipelines stopped to answer.
        ClusterError: it cannot be seen what the servers use.
        StoreError: the store or the bucket cannot be read.
    """
    found = list(_before_uploads(place))
    going = [thing for thing in found if thing.kept is None]
    return [*found, *uploads.find(place, going), *checkpoints.find(place), *images.find(place)]


def _before_uploads(place: Place) -> Iterator[Thing]:
    yield from versions.find(place)
    yield from backend_runs.find(place)
    yield from pod_runs.find(place)
    yield from local_runs.find(place)
