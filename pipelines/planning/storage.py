"""Bytes on disk and in buckets: what the steps write, and what stays."""

from modelyard.components.artifacts import Record
from modelyard.components.train.measured import Probed, Traced
from modelyard.pipelines.planning.dataset import Dataset

EXPORTS = 3  # .keras, ONNX and SavedModel hold the weights once each


class Storage(Record):
    """Bytes. `raw` and `features` are the dataset in shards, `model` the exported files of a version.

    `run` is what one run leaves with nothing in its cache; `version` what each published version adds to the
    store; `checkpoint` the weights with the optimizer's state, and with early stopping the best epoch's.
    """

    raw: int
    features: int
    model: int
    checkpoint: int
    run: int
    version: int


def storage(data: Dataset, traced: Traced, probed: Probed | None, early: bool = False) -> Storage:
    """Return what a run writes.

    Args:
        data: the rows.
        traced: the variables.
        probed: the exported files, where a probe made them.
        early: training may stop early, so a checkpoint holds the best epoch's weights, too.
    """
    rows = sum(data.rows.values())
    shards = rows * data.row_bytes
    model = probed.model_bytes if probed else EXPORTS * traced.weights
    return Storage(
        raw=shards,
        features=shards,
        model=model,
        checkpoint=traced.weights * (2 if early else 1) + traced.optimizer,
        run=2 * shards + model,
        version=model,
    )
