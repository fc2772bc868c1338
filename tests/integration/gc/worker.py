"""Runs gc 40 days from now, after it reads a line from stdin.

worker.py CONFIG ENVIRONMENT HOME KUBECONFIG
"""

import os
import sys
import time
from pathlib import Path

from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.maintenance.garbage_collection import GarbageCollector


def main() -> None:
    config, environment_file, home, kubeconfig = sys.argv[1:]
    os.environ["KUBECONFIG"] = kubeconfig
    environment = load_environment(environment_file, environ={})
    settings = load(Path(config), environ={}, store=environment.model_store())
    sys.stdin.readline()
    objects = GarbageCollector(settings, environment, Path(home), time.time() + 40 * 86400).find()
    to_remove = [item for item in objects if item.keep_reason is None]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for item in to_remove:
        item.remove()


main()
