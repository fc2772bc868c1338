"""The step `fingerprint`: what identifies the data and the run, without fetching anything."""
