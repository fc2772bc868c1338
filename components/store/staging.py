"""Copies artifacts between a storage and the folder in which KFP mounts it for steps (/gcs for gs://).

    python -m modelyard.components.store.staging fetch gs://bucket/runs/7/train/model  # before a step
    python -m modelyard.components.store.staging put gs://bucket/runs/7/evaluate       # after it

An artifact is a file or a folder.
"""

import argparse
from pathlib import Path

from modelyard.components.errors import ConfigError
from modelyard.components.step import step
from modelyard.components.store.storage import Setting, find_storage, open_uri

SETTING: Setting = "environment.pipeline_root"


def fetch(uri: str, path: Path, endpoint: str | None = None) -> None:
    """Copy the file or folder at `uri` to `path`; raise NotFoundError if it does not exist."""
    objects, key = open_uri(uri, endpoint, SETTING)
    files = {name: path / name.removeprefix(f"{key}/") for name in objects.keys(f"{key}/")}
    for name, target in (files or {key: path}).items():
        target.parent.mkdir(parents=True, exist_ok=True)
        objects.download(name, target)


def put(path: Path, uri: str, endpoint: str | None = None) -> None:
    """Copy the files of the folder at `path` to `uri`."""
    objects, key = open_uri(uri, endpoint, SETTING)
    for file in sorted(filter(Path.is_file, path.rglob("*"))):
        objects.upload(f"{key}/{file.relative_to(path).as_posix()}", file)


def mount_path(uri: str) -> Path:
    """Return the path at which KFP mounts `uri` for steps.

    Raises:
        ConfigError: KFP does not mount this storage.
    """
    mount = find_storage(uri, SETTING).mount
    if mount is None:
        raise ConfigError(
            f"{SETTING} is {uri}, which Kubeflow Pipelines does not mount for steps. Use gs://."
        )
    return Path(mount, uri.partition("://")[2])


def main() -> None:
    """Run the command."""
    with step("staging"):
        parser = argparse.ArgumentParser(description="Copy artifacts between object storage and steps.")
        parser.add_argument("--endpoint", help="URL of an emulator")
        parser.add_argument("action", choices=("fetch", "put"))
        parser.add_argument("uri", nargs="*")
        options = parser.parse_args()
        for uri in options.uri:
            if options.action == "fetch":
                fetch(uri, mount_path(uri), options.endpoint)
            else:
                put(mount_path(uri), uri, options.endpoint)


if __name__ == "__main__":
    main()
