"""From a configuration to what KFP runs: arguments, pipeline, uploads, preflight checks, images."""
