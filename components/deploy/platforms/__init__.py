"""Serving platforms: what loads versions of a model and leads clients to them.

base        the interface, ServingPlatform
local       servers of this machine, which follow the champion pointer by themselves
deployment  two Deployments and a Service; objects makes them from templates/, pods waits for their pods
"""

from importlib import import_module

from modelyard.components.deploy.platforms.base import PlatformConfig, ServingPlatform
from modelyard.components.deploy.settings import PLATFORMS, Target


def open_platform(config: PlatformConfig) -> ServingPlatform:
    """Return what serves a model.

    Raises:
        ClusterError: there is no cluster.
    """
    return find_platform_class(config.target).open(config)


def find_platform_class(target: Target) -> type[ServingPlatform]:
    """Return the class of a target's platform; only that is imported."""
    module, _, kind = PLATFORMS[target.platform].partition(":")
    platform: type[ServingPlatform] = getattr(import_module(module), kind)
    return platform
