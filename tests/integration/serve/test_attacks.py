"""The server of a default pod under attack: `make soak`; MODELYARD_TEST_SOAK=0.01 is a hundredth of it.

The server has the memory of a default pod: in a separate control group where this process may create one,
else by RLIMIT_DATA. As in a pod, nothing limits its processors, which the attackers share.
"""

import asyncio
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from uuid import uuid4

import pytest

from tests.access import make_certificate, write_private
from tests.cluster.rollout.load import Load
from tests.integration.serve import attackers
from tests.integration.serve.attackers import SHARE, SPAWN, run_attacks
from tests.integration.serve.conftest import NAME, RunningServer, start_server

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]

REQUESTS, CONNECTIONS, PROMOTIONS = (max(1, int(SHARE * count)) for count in (100_000, 10_000, 50))
MEMORY = 512 * 2**20
SLOW = 0.1  # seconds in which a server says that it is alive


@dataclass
class Pod:
    """A server with the memory of a default pod, and how quickly it has said that it is alive."""

    server: RunningServer
    group: Path | None
    watcher: Connection

    @cached_property
    def health(self) -> list[tuple[float, float, float]]:
        """What was seen until now; see `measure_health`."""
        self.watcher.send("end")
        return self.watcher.recv()

    @property
    def peak(self) -> int:
        """The most memory that it has used, in MiB, with pages of files where a control group counts."""
        if self.group is None:
            status = Path(f"/proc/{self.server.process.pid}/status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0]) >> 10
        name = "memory.peak" if (self.group / "memory.peak").exists() else "memory.max_usage_in_bytes"
        return int((self.group / name).read_text()) >> 20

    @property
    def kills(self) -> int:
        """How many processes were killed for their memory."""
        if self.group is None:
            return 0
        events = self.group / "memory.events"
        text = (events if events.exists() else self.group / "memory.oom_control").read_text()
        return int(text.partition("oom_kill ")[2].split()[0])

    @property
    def files(self) -> int:
        return len([*Path(f"/proc/{self.server.process.pid}/fd").iterdir()])

    def summary(self) -> str:
        times = sorted(seconds for seconds, _, _ in self.health)
        beside = sorted(bare for _, bare, _ in self.health)
        parts = (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))
        health = ", ".join(
            f"{name} {at(times, part) * 1000:.1f} ({at(beside, part) * 1000:.1f})" for name, part in parts
        )
        where = "control group" if self.group else "RLIMIT_DATA"
        return (
            f"{where}: peak {self.peak} MiB, {self.kills} killed, {self.files} files; health in ms, and "
            f"of a bare asyncio server: {health}; {len(times)} times, {len(self.slow())} slow by itself"
        )

    def slow(self) -> list[tuple[float, float, float]]:
        """Return the health checks that were slow because of the server."""
        return [one for one in self.health if one[2] > SLOW > one[1]]


def at(values: list[float], part: float) -> float:
    return values[min(len(values) - 1, int(part * len(values)))]


@contextmanager
def memory_group() -> Iterator[Path | None]:
    """Create a control group with the memory of a default pod; None if that is not possible."""
    for root, limits in (
        ("/sys/fs/cgroup", {"memory.max": MEMORY, "memory.swap.max": 0}),
        ("/sys/fs/cgroup/memory", {"memory.limit_in_bytes": MEMORY, "memory.memsw.limit_in_bytes": MEMORY}),
    ):
        group = Path(root) / f"modelyard-{uuid4().hex[:8]}"
        if (group.parent / "cgroup.procs").exists():
            with suppress(OSError):
                group.mkdir()
                for file, limit in limits.items():
                    (group / file).write_text(str(limit))
                break
    else:
        yield None
        return
    try:
        yield group
    finally:
        group.rmdir()


def memory_limited_command(group: Path | None) -> list[str]:
    """Return what stands before a command that is to have the memory of a default pod."""
    if group is None:
        return ["prlimit", f"--data={MEMORY}"]
    return ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]


@contextmanager
def pod(tiny_model, **settings) -> Iterator[Pod]:
    """Start a server with the memory of a default pod, and look at its health all the time."""
    with (
        memory_group() as group,
        start_server(tiny_model, before=memory_limited_command(group), **settings) as server,
        run_in_process(serve_health) as bare,
        run_in_process(measure_health, server.address, bare.recv(), server.process.pid) as watcher,
    ):
        watcher.recv()  # it has begun
        yield Pod(server, group, watcher)


@contextmanager
def run_in_process(work: Callable[..., None], *arguments: object) -> Iterator[Connection]:
    """Run a function in another process, and give a pipe to it."""
    parent, child = SPAWN.Pipe()
    process = SPAWN.Process(target=work, args=(*arguments, child), daemon=True)
    process.start()
    try:
        yield parent
    finally:
        process.terminate()
        process.join()


def serve_health(end: Connection) -> None:
    """Answer health checks with asyncio alone."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async def serve() -> None:
        server = await asyncio.start_server(one, "127.0.0.1", 0)
        end.send(server.sockets[0].getsockname())
        await server.serve_forever()

    asyncio.run(serve())


def measure_health(
    address: attackers.Address, bare: attackers.Address, process: int, end: Connection
) -> None:
    """Ask both servers for their health until told to end, and send what was seen.

    That is for each time the seconds of the server, those of the bare one, and the most of the former that
    can be the server's own doing: it computed, and its threads had processors.
    """
    connections = [socket.create_connection(target, 60) for target in (address, bare)]
    seen = []
    end.send("began")
    while not end.poll(0.02):
        before, started = threads(process), time.perf_counter()
        for connection in connections:
            connection.sendall(attackers.HEALTH)
        seconds = []
        for connection, ending in ((connections[1], b"\r\n\r\n"), (connections[0], b"}")):
            answer = b""
            while not answer.endswith(ending):
                answer += (part := connection.recv(65536))
                assert part, "it is not alive"
            seconds.append(time.perf_counter() - started)
        changes = [
            [(new - old) / 1e9 for new, old in zip(after, before.get(name, (0, 0)), strict=True)]
            for name, after in threads(process).items()
        ]
        computed, waited = sum(one[0] for one in changes), max(one[1] for one in changes)
        seen.append((seconds[1], seconds[0], min(computed, seconds[1] - waited)))
    end.send(seen)


def threads(process: int) -> dict[str, list[int]]:
    """Return the nanoseconds for which each thread computed, and was ready to but had no processor."""
    found = {}
    for thread in Path(f"/proc/{process}/task").iterdir():
        with suppress(OSError):
            found[thread.name] = [int(part) for part in (thread / "schedstat").read_text().split()[:2]]
    return found


def check(pod: Pod, found: Counter[str], report: Callable[[str], None]) -> None:
    """Assert that the server has held, and print what was seen."""
    report(f"{sum(found.values())} outcomes: {dict(found.most_common(12))}")
    report(pod.summary())
    assert not [outcome for outcome in found if outcome.startswith("BAD")]
    assert pod.server.process.poll() is None, pod.server.log.read_text()
    assert pod.kills == 0
    assert pod.peak <= MEMORY >> 20
    assert pod.slow() == []
    assert "Traceback" not in pod.server.log.read_text()
    assert attackers.well_behaved(pod.server.address, Random(0)) == ["200"] * 20  # noqa: S311


@pytest.fixture
def report(capsys):
    """Print a sentence at once."""

    def show(sentence: str) -> None:
        with capsys.disabled():
            print(f"\n{sentence}", end="", flush=True)  # noqa: T201

    return show


def test_a_mixture_of_all_attacks(tiny_model, report):
    tiny_model.publish()
    with pod(tiny_model, body_timeout=2.0) as one:
        work = [(attackers.mixture, one.server.address, seed, REQUESTS // 100) for seed in range(100)]
        check(one, run_attacks(work, 16), report)


def test_connections_that_are_aborted(tiny_model, report):
    tiny_model.publish()
    with pod(tiny_model, body_timeout=2.0) as one:
        before = one.files
        share = CONNECTIONS // 100
        work = [(attackers.count, attackers.rude, one.server.address, seed, share) for seed in range(100)]
        found = run_attacks(work)
        while one.files > before + 5:  # the thread that follows the champion opens some
            time.sleep(0.1)
        check(one, found, report)


def test_tls_connections_without_a_handshake(tiny_model, report, tmp_path):
    certificate, key = make_certificate()
    settings = {
        "tls_cert": write_private(tmp_path / "crt", certificate),
        "tls_key": write_private(tmp_path / "key", key),
        "body_timeout": 2.0,
    }
    tiny_model.publish()
    with (
        memory_group() as group,
        start_server(tiny_model, before=memory_limited_command(group), **settings) as server,
    ):
        outcomes = run_attacks([(attackers.count, attackers.silent, server.address, n, 5) for n in range(4)])
        report(f"{dict(outcomes)} of TLS connections")
        context = ssl.create_default_context(cadata=certificate.decode())
        with (
            socket.create_connection(server.address, 30) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(attackers.HEALTH)
            assert connection.recv(15) == b"HTTP/1.1 200 OK"


def test_all_attacks_at_once(tiny_model, report):
    tiny_model.publish()
    with pod(tiny_model) as one:
        check(one, attackers.attack_in_all_ways(one.server.address), report)


def test_promotions_under_load(tiny_model, report):
    tiny_model.publish()
    with start_server(tiny_model) as server:
        load = Load(server.address, f"/v1/models/{NAME}:predict", attackers.EXAMPLE)
        with load.running():
            for _ in range(PROMOTIONS):
                version = tiny_model.publish()
                while not server.metric("modelyard_model_version", version=str(version)):
                    time.sleep(0.05)
        report(f"{PROMOTIONS} promotions, {load.sent} requests, {len(load.failed)} failed")
        assert load.failed == []
