"""The public API; see pipelines/api.py."""

from modelyard.pipelines.api import *  # noqa: F403 - the names in its __all__
