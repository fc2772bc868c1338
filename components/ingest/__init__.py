"""The step `ingest`: fetch, verify and decode a source into shards, executing nothing."""
