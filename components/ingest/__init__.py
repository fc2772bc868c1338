"""The step `ingest`: fetches, verifies and decodes a source into shards, without executing its content."""
