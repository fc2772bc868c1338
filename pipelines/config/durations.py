"""Durations as people write them: 90m, 12h, 30d, 8w."""

import re

from modelyard.components.errors import ConfigError

SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}
PATTERN = r"^[1-9][0-9]{0,4}[mhdw]$"


def seconds(text: str, key: str) -> int:
    """Return a duration in seconds.

    Args:
        text: the duration.
        key: the option that it is the value of, for the message.

    Raises:
        ConfigError: it is none.
    """
    if not re.match(PATTERN, text):
        raise ConfigError(f"{key} is {text!r}, which is no duration. Write it as 90m, 12h, 30d or 8w.")
    return int(text[:-1]) * SECONDS[text[-1]]


def text(seconds: int) -> str:
    """Return a duration of whole minutes in its largest unit."""
    unit = max((unit for unit, size in SECONDS.items() if seconds % size == 0), key=SECONDS.__getitem__)
    return f"{seconds // SECONDS[unit]}{unit}"
