"""Kubernetes as modelyard uses it: a thin client, and what its objects and refusals mean in plain words."""
