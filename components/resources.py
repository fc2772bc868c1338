"""Memory and CPU limits of this process, from its container or the machine."""

import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path

GROUPS, MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def read_memory_limit(groups: Path = GROUPS, mount: Path = MOUNT) -> int:
    """Return the smallest memory limit in bytes: of the machine, the process or its control groups.

    Args:
        groups: file that lists the control groups of this process; only on Linux.
        mount: their mount point; in a container, the container's group may be the root.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for text in _values(groups, mount, "memory.max", "memory", "memory.limit_in_bytes"):
        limits += [int(text)] if text.isdigit() else []  # "max" is no limit
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        limit, _ = resource.getrlimit(kind)
        limits += [limit] if limit != resource.RLIM_INFINITY else []
    return min(limits)


def read_memory_used() -> int:
    """Return the resident memory of this process in bytes; 0 outside Linux."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.is_file() else 0


def read_cpu_limit(groups: Path = GROUPS, mount: Path = MOUNT) -> int:
    """Return the number of CPUs that this process may use, rounded up; see `read_memory_limit`."""
    limits = [float(len(os.sched_getaffinity(0)))]
    for text in _values(groups, mount, "cpu.max"):
        quota, _, period = text.partition(" ")
        limits += [int(quota) / int(period)] if quota.isdigit() else []
    return max(1, math.ceil(min(limits)))


def _values(groups: Path, mount: Path, name: str, controller: str = "", old_name: str = "") -> Iterator[str]:
    """Yield the values of a file in the process' control groups; cgroup v1 has one tree per controller."""
    for line in groups.read_text().splitlines() if groups.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _parent_values(mount, path, name)
        elif controller in controllers.split(","):
            yield from _parent_values(mount / controller, path, old_name)


def _parent_values(root: Path, path: str, name: str) -> Iterator[str]:
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        if folder.is_relative_to(root) and (folder / name).is_file():
            yield (folder / name).read_text().strip()
