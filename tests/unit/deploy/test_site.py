"""What a model's place on a cluster asks of it."""

from dataclasses import fields
from typing import Any

import pytest

from modelyard.components.deploy.site import Site
from modelyard.components.errors import ConfigError


def test_a_service_begins_with_a_letter():
    rest: dict[str, Any] = {field.name: None for field in fields(Site)}
    with pytest.raises(ConfigError, match="'7segments' cannot be served on Kubernetes"):
        Site(**{**rest, "name": "7segments"})
    Site(**{**rest, "name": "segments-7"})
