"""How much memory this process may use: that of the machine, or what its container was given of it."""

import os
from pathlib import Path


def memory_here(kinds: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes of physical memory, or the least limit of a control group around this process.

    Args:
        kinds: the file that names the groups of this process; there is none but on Linux.
        groups: where the groups are mounted; inside a container, its own group may be the root.
    """
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for line in kinds.read_text().splitlines() if kinds.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            found += _limits(groups, path, "memory.max")
        elif "memory" in controllers.split(","):
            found += _limits(groups / "memory", path, "memory.limit_in_bytes")
    return min(found)


def _limits(root: Path, path: str, name: str) -> list[int]:
    """Return the limits of a group and of those around it; "max" is none."""
    group = root / path.lstrip("/")
    files = [one / name for one in (group, *group.parents) if one.is_relative_to(root)]
    texts = [file.read_text().strip() for file in files if file.is_file()]
    return [int(text) for text in texts if text.isdigit()]
