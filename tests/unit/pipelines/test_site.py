"""Where a command finds a model on a cluster."""

import pytest

from modelyard.components.errors import ConfigError
from modelyard.pipelines.serving.site import find_site


def test_this_machine_has_no_rollouts():
    with pytest.raises(ConfigError, match="is this machine, which has no rollouts"):
        find_site("digits", "local", (), print, None)
