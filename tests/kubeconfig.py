"""Kubeconfigs with one cluster."""

import json
from pathlib import Path
from typing import Any

import pytest


def create_kubeconfig(server: str, **user: Any) -> dict[str, Any]:
    """Return a kubeconfig whose only context has a cluster at this URL and a user with these fields."""
    return {
        "clusters": [{"name": "cluster", "cluster": {"server": server}}],
        "contexts": [{"name": "context", "context": {"cluster": "cluster", "user": "user"}}],
        "users": [{"name": "user", "user": user}],
        "current-context": "context",
    }


def use_cluster(monkeypatch: pytest.MonkeyPatch, folder: Path, server: str, **user: Any) -> Path:
    """Write a kubeconfig into a folder, set KUBECONFIG to its path and return the path."""
    path = folder / "kubeconfig"
    path.write_text(json.dumps(create_kubeconfig(server, **user)))
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path
