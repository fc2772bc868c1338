"""Serving platforms: what loads versions of a model and leads clients to them.

base        the interface, ServingPlatform
local       servers of this machine, which follow the champion pointer by themselves
deployment  two Deployments and a Service; objects makes them from templates/, pods waits for their pods
"""

from importlib import import_module

from modelyard.components.deploy.platforms.base import PlatformConfig, ServingPlatform
from modelyard.components.deploy.settings import PLATFORMS


def open_platform(config: PlatformConfig) -> ServingPlatform:
    """Return what serves a model.

    Raises:
        ClusterError: there is no cluster.
    """
    module, _, kind = PLATFORMS[config.target.platform].partition(":")
    platform: type[ServingPlatform] = getattr(import_module(module), kind)  # only what is used is imported
    return platform.open(config)
