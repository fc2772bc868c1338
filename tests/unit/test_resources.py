"""The memory and CPUs that a process may use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.components.resources import read_cpu_limit, read_memory_limit

PHYSICAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
GIB = 2**30


@pytest.mark.parametrize(
    ("groups", "limits"),
    [
        ("0::/\n", {"memory.max": f"{GIB}"}),  # a container that sees its cgroup as the root
        ("0::/a.slice/b\n", {"memory.max": f"{GIB}", "a.slice/memory.max": f"{4 * GIB}"}),
        ("0::/a.slice/b\n", {"a.slice/memory.max": f"{GIB}", "a.slice/b/memory.max": "max"}),
        ("4:memory:/pods/x\n0::/\n", {"memory/pods/x/memory.limit_in_bytes": f"{GIB}"}),
        ("4:cpu,memory:/pods/x\n", {"memory/memory.limit_in_bytes": f"{GIB}"}),
    ],
)
def test_memory_limit_is_the_smallest_of_all_cgroups(
    groups: str, limits: dict[str, str], tmp_path: Path
) -> None:
    assert limit_in_cgroup(tmp_path, groups, limits) == GIB


@pytest.mark.parametrize("limit", ["max", "9223372036854771712"])
def test_memory_limit_without_a_cgroup_limit_is_the_physical_memory(limit: str, tmp_path: Path) -> None:
    limits = {"memory/x/memory.limit_in_bytes": limit, "x/memory.max": limit, "cpu.max": "1"}
    assert limit_in_cgroup(tmp_path, "4:memory:/x\n0::/x\n", limits) == PHYSICAL
    assert read_memory_limit(tmp_path / "none", tmp_path / "none") == PHYSICAL


def limit_in_cgroup(folder: Path, groups: str, limits: dict[str, str]) -> int:
    (folder / "cgroup").write_text(groups)
    for path, text in limits.items():
        (folder / "groups" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "groups" / path).write_text(f"{text}\n")
    return read_memory_limit(folder / "cgroup", folder / "groups")


@pytest.mark.parametrize(("text", "expected"), [("50000 100000", 1), ("max 100000", None)])
def test_cpu_limit_is_the_quota(tmp_path: Path, text: str, expected: int | None) -> None:
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "groups").mkdir()
    (tmp_path / "groups" / "cpu.max").write_text(text + "\n")
    expected = expected or len(os.sched_getaffinity(0))
    assert read_cpu_limit(tmp_path / "cgroup", tmp_path / "groups") == expected


def test_memory_limit_includes_rlimits() -> None:
    code = "from modelyard.components.resources import read_memory_limit; print(read_memory_limit())"
    command = ["prlimit", f"--data={GIB}", sys.executable, "-c", code]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == f"{GIB}\n"
