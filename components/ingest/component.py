"""The KFP component `ingest`."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def ingest(spec: str, fingerprint: str, raw: dsl.Output[dsl.Dataset]) -> None:
    """Fetch, verify and decode the source into shards, without executing its content.

    Args:
        spec: IngestSpec as JSON.
        fingerprint: cache key of the data, so that a changed source is not read from the cache.
        raw: schema.json and the shards of each split of the source.
    """
    from modelyard.components.step import step

    with step("ingest"):
        from modelyard.components.ingest.dataset import ingest
        from modelyard.components.ingest.spec import IngestSpec

        ingest(IngestSpec.from_json(spec), fingerprint, raw.path)
