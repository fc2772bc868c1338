"""The step `fingerprint`: identifies the data and the run without downloading data."""
