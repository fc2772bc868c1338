"""The KFP component `ingest`."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def ingest(spec: str, fingerprint: str, raw: dsl.Output[dsl.Dataset]) -> None:
    """Fetch, verify and decode the source into shards; never execute what is read.

    Args:
        spec: IngestSpec as JSON.
        fingerprint: a key for the data; a changed source is a changed argument, so it is never served
            from the cache.
        raw: schema.json and one group of shards per split of the source.
    """
    from modelyard.components.step import step

    with step("ingest"):
        from modelyard.components.ingest.dataset import ingest
        from modelyard.components.ingest.spec import IngestSpec

        ingest(IngestSpec.of(spec), fingerprint, raw.path)
