"""The memory that a process may use, with the files that Linux keeps of control groups."""

import os
from pathlib import Path

import pytest

from modelyard.components.memory import memory_here

PHYSICAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
GIB = 2**30


def seen(folder: Path, kinds: str, limits: dict[str, str]) -> int:
    (folder / "cgroup").write_text(kinds)
    for path, text in limits.items():
        (folder / "groups" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "groups" / path).write_text(f"{text}\n")
    return memory_here(folder / "cgroup", folder / "groups")


@pytest.mark.parametrize(
    ("kinds", "limits"),
    [
        ("0::/\n", {"memory.max": f"{GIB}"}),  # a container whose group is the root of what it sees
        ("0::/a.slice/b\n", {"memory.max": f"{GIB}", "a.slice/memory.max": f"{4 * GIB}"}),
        ("0::/a.slice/b\n", {"a.slice/memory.max": f"{GIB}", "a.slice/b/memory.max": "max"}),
        ("4:memory:/pods/x\n0::/\n", {"memory/pods/x/memory.limit_in_bytes": f"{GIB}"}),
        ("4:cpu,memory:/pods/x\n", {"memory/memory.limit_in_bytes": f"{GIB}"}),
    ],
)
def test_the_least_limit_around_the_process_counts(
    kinds: str, limits: dict[str, str], tmp_path: Path
) -> None:
    assert seen(tmp_path, kinds, limits) == GIB


@pytest.mark.parametrize("limit", ["max", "9223372036854771712"])
def test_without_a_limit_it_is_the_memory_of_the_machine(limit: str, tmp_path: Path) -> None:
    kinds = "4:memory:/x\n0::/x\n"
    limits = {"memory/x/memory.limit_in_bytes": limit, "x/memory.max": limit, "cpu.max": "1"}
    assert seen(tmp_path, kinds, limits) == PHYSICAL


def test_another_system_has_no_such_files(tmp_path: Path) -> None:
    assert memory_here(tmp_path / "none", tmp_path / "none") == PHYSICAL
