"""Compile a configuration for KFP: arguments, pipeline, uploads, preflight checks, images."""
