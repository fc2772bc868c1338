"""Removes what is not needed, 40 days from now: worker.py CONFIG ENVIRONMENT HOME KUBECONFIG."""

import sys
import time
from pathlib import Path

from kubernetes.config import kube_config

from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.maintenance import plan
from modelyard.pipelines.maintenance.place import Place


def main() -> None:
    config, environment, home, kubeconfig = sys.argv[1:]
    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = kubeconfig
    there = load_environment(environment, environ={})
    settings = load(Path(config), environ={}, store=there.model_store())
    place = Place(settings, there, Path(home), time.time() + 40 * 86400)
    place.look(None)
    found = [thing for thing in plan.find(place) if thing.kept is None]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for thing in found:
        thing.remove()


main()
