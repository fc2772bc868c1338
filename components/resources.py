"""Memory and CPU limits of this process, from its container or the machine."""

import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path

GROUPS, MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def memory_limit(groups: Path = GROUPS, mount: Path = MOUNT) -> int:
    """Return the memory of this machine in bytes, or the smallest limit of the process or its control groups.

    Args:
        groups: the file that names the control groups of this process; only on Linux.
        mount: where they are mounted; inside a container, its own group may be the root.
    """
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for text in _values(groups, mount, "memory.max", "memory", "memory.limit_in_bytes"):
        found += [int(text)] if text.isdigit() else []  # "max" is no limit
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    return min([*found, *(limit for limit in limits if limit != resource.RLIM_INFINITY)])


def memory_used() -> int:
    """Return the memory of this process in bytes; 0 where the system does not say."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.is_file() else 0


def cpu_limit(groups: Path = GROUPS, mount: Path = MOUNT) -> int:
    """Return the number of CPUs that this process may use, rounded up; see `memory_limit`."""
    found = [float(len(os.sched_getaffinity(0)))]
    for text in _values(groups, mount, "cpu.max"):
        quota, _, period = text.partition(" ")
        found += [int(quota) / int(period)] if quota.isdigit() else []
    return max(1, math.ceil(min(found)))


def _values(groups: Path, mount: Path, name: str, controller: str = "", old_name: str = "") -> Iterator[str]:
    """Yield a file of the control groups around this process; version 1 has a tree for each controller."""
    for line in groups.read_text().splitlines() if groups.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _upwards(mount, path, name)
        elif controller in controllers.split(","):
            yield from _upwards(mount / controller, path, old_name)


def _upwards(root: Path, path: str, name: str) -> Iterator[str]:
    group = root / path.lstrip("/")
    for one in (group, *group.parents):
        if one.is_relative_to(root) and (one / name).is_file():
            yield (one / name).read_text().strip()
