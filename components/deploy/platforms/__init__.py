"""Serving platforms, which load versions of a model and route clients to them.

base        the interface, ServingPlatform
local       servers of this machine, which follow the champion pointer
deployment  two Deployments and a Service on Kubernetes
objects     renders the Kubernetes objects from templates/
pods        waits for pods and reads their metrics
"""

from importlib import import_module

from modelyard.components.deploy.platforms.base import PlatformConfig, ServingPlatform
from modelyard.components.deploy.settings import PLATFORMS, Target


def open_platform(config: PlatformConfig) -> ServingPlatform:
    """Return the platform of a model.

    Raises:
        ClusterError: there is no cluster.
    """
    return find_platform_class(config.target).open(config)


def find_platform_class(target: Target) -> type[ServingPlatform]:
    """Return the class of a target's platform. No module of another platform is imported."""
    module, _, name = PLATFORMS[target.platform].partition(":")
    platform: type[ServingPlatform] = getattr(import_module(module), name)
    return platform
