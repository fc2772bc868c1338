"""Bytes on disk and in buckets: what the steps write, and what stays."""

from components.artifacts import Record
from components.train.measured import Probed, Traced
from pipelines.plan.dataset import Dataset

EXPORTS = 3  # .keras, ONNX and SavedModel hold the weights once each


class Storage(Record):
    """Bytes. `raw` and `features` are the dataset in shards, `model` the exported files of a version.

    `run` is what one run leaves with nothing in its cache; `version` what each published version adds to the
    store; `checkpoint` the weights with the optimizer's state.
    """

    raw: int
    features: int
    model: int
    checkpoint: int
    run: int
    version: int


def storage(data: Dataset, traced: Traced, probed: Probed | None) -> Storage:
    """Return what a run writes; the model's size is that of the exported files where a probe made them."""
    rows = sum(data.rows.values())
    shards = rows * data.row_bytes
    model = probed.model_bytes if probed else EXPORTS * traced.weights
    return Storage(
        raw=shards,
        features=shards,
        model=model,
        checkpoint=traced.weights + traced.optimizer,
        run=2 * shards + model,
        version=model,
    )
