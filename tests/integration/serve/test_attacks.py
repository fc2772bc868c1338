"""Attacks on a server with the memory of a default pod; MODELYARD_TEST_SOAK=0.01 runs a hundredth of them.

A control group limits the memory, or RLIMIT_DATA if this process may not create control groups. As in a pod,
the CPUs are not limited; the server shares them with the attackers.
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
SLOW = 0.1  # seconds for a response to a health check


@dataclass
class Pod:
    """A server with the memory of a default pod, and the latency of its health checks."""

    server: RunningServer
    group: Path | None
    watcher: Connection

    @cached_property
    def health(self) -> list[tuple[float, float, float]]:
        """The health checks; see `measure_health`."""
        self.watcher.send("end")
        return self.watcher.recv()

    @property
    def peak(self) -> int:
        """The peak memory in MiB; that of a control group includes cached files."""
        if self.group is None:
            status = Path(f"/proc/{self.server.process.pid}/status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0]) >> 10
        name = "memory.peak" if (self.group / "memory.peak").exists() else "memory.max_usage_in_bytes"
        return int((self.group / name).read_text()) >> 20

    @property
    def kills(self) -> int:
        """The number of processes that were killed because of too little memory."""
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
        bare_times = sorted(bare for _, bare, _ in self.health)
        parts = (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))
        health = ", ".join(
            f"{name} {quantile(times, part) * 1000:.1f} ({quantile(bare_times, part) * 1000:.1f})"
            for name, part in parts
        )
        limit = "control group" if self.group else "RLIMIT_DATA"
        return (
            f"{limit}: peak {self.peak} MiB, {self.kills} killed, {self.files} files; health in ms, and "
            f"of a bare asyncio server: {health}; {len(times)} checks, {len(self.slow())} too slow"
        )

    def slow(self) -> list[tuple[float, float, float]]:
        """Return the health checks that were slow because of the server."""
        return [check for check in self.health if check[2] > SLOW > check[1]]


def quantile(values: list[float], part: float) -> float:
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
    """Return the prefix of a command that limits its memory to that of a default pod."""
    if group is None:
        return ["prlimit", f"--data={MEMORY}"]
    return ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]


@contextmanager
def start_pod(tiny_model, **settings) -> Iterator[Pod]:
    """Start a server with the memory of a default pod, and measure its health continuously."""
    with (
        memory_group() as group,
        start_server(tiny_model, before=memory_limited_command(group), **settings) as server,
        run_in_process(serve_health) as bare,
        run_in_process(measure_health, server.address, bare.recv(), server.process.pid) as watcher,
    ):
        watcher.recv()  # the measurement has started
        yield Pod(server, group, watcher)


@contextmanager
def run_in_process(work: Callable[..., None], *arguments: object) -> Iterator[Connection]:
    """Run a function in another process; yield a pipe to it."""
    parent, child = SPAWN.Pipe()
    process = SPAWN.Process(target=work, args=(*arguments, child), daemon=True)
    process.start()
    try:
        yield parent
    finally:
        process.terminate()
        process.join()


def serve_health(end: Connection) -> None:
    """Respond to health checks with a bare asyncio server."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async def serve() -> None:
        server = await asyncio.start_server(respond, "127.0.0.1", 0)
        end.send(server.sockets[0].getsockname())
        await server.serve_forever()

    asyncio.run(serve())


def measure_health(
    address: attackers.Address, bare: attackers.Address, process: int, end: Connection
) -> None:
    """Check the health of both servers until a message arrives; then send the measurements.

    A measurement has the seconds of the server, those of the bare server, and the maximum share of the former
    that the server caused: its threads computed and did not wait for a CPU.
    """
    connections = [socket.create_connection(target, 60) for target in (address, bare)]
    measurements = []
    end.send("started")
    while not end.poll(0.02):
        before, started = threads(process), time.perf_counter()
        for connection in connections:
            connection.sendall(attackers.HEALTH)
        seconds = []
        for connection, ending in ((connections[1], b"\r\n\r\n"), (connections[0], b"}")):
            response = b""
            while not response.endswith(ending):
                response += (part := connection.recv(65536))
                assert part, "the server closed the connection"
            seconds.append(time.perf_counter() - started)
        changes = [
            [(new - old) / 1e9 for new, old in zip(after, before.get(name, (0, 0)), strict=True)]
            for name, after in threads(process).items()
        ]
        computed, waited = sum(change[0] for change in changes), max(change[1] for change in changes)
        measurements.append((seconds[1], seconds[0], min(computed, seconds[1] - waited)))
    end.send(measurements)


def threads(process: int) -> dict[str, list[int]]:
    """Return the nanoseconds for which each thread computed, and waited for a CPU."""
    times = {}
    for thread in Path(f"/proc/{process}/task").iterdir():
        with suppress(OSError):
            times[thread.name] = [int(part) for part in (thread / "schedstat").read_text().split()[:2]]
    return times


def check(pod: Pod, outcomes: Counter[str], report: Callable[[str], None]) -> None:
    """Assert that the server remained healthy, and print the outcomes."""
    report(f"{sum(outcomes.values())} outcomes: {dict(outcomes.most_common(12))}")
    report(pod.summary())
    assert not [outcome for outcome in outcomes if outcome.startswith("BAD")]
    assert pod.server.process.poll() is None, pod.server.log.read_text()
    assert pod.kills == 0
    assert pod.peak <= MEMORY >> 20
    assert pod.slow() == []
    assert "Traceback" not in pod.server.log.read_text()
    assert attackers.regular_client(pod.server.address, Random(0)) == ["200"] * 20  # noqa: S311


@pytest.fixture
def report(capsys):
    """Return a function that prints a sentence during the test."""

    def show(sentence: str) -> None:
        with capsys.disabled():
            print(f"\n{sentence}", end="", flush=True)  # noqa: T201

    return show


def test_the_server_withstands_a_mixture_of_attacks(tiny_model, report):
    tiny_model.publish()
    with start_pod(tiny_model, body_timeout=2.0) as pod:
        work = [(attackers.mixture, pod.server.address, seed, REQUESTS // 100) for seed in range(100)]
        check(pod, run_attacks(work, 16), report)


def test_the_server_closes_the_files_of_aborted_connections(tiny_model, report):
    tiny_model.publish()
    with start_pod(tiny_model, body_timeout=2.0) as pod:
        before = pod.files
        share = CONNECTIONS // 100
        work = [(attackers.count, attackers.abort, pod.server.address, seed, share) for seed in range(100)]
        outcomes = run_attacks(work)
        while pod.files > before + 5:  # the thread that polls the champion opens files
            time.sleep(0.1)
        check(pod, outcomes, report)


def test_the_server_withstands_tls_connections_without_a_handshake(tiny_model, report, tmp_path):
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
        outcomes = run_attacks(
            [(attackers.count, attackers.silent, server.address, seed, 5) for seed in range(4)]
        )
        report(f"{dict(outcomes)} of TLS connections")
        context = ssl.create_default_context(cadata=certificate.decode())
        with (
            socket.create_connection(server.address, 30) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(attackers.HEALTH)
            assert connection.recv(15) == b"HTTP/1.1 200 OK"


def test_the_server_withstands_concurrent_attacks(tiny_model, report):
    tiny_model.publish()
    with start_pod(tiny_model) as pod:
        check(pod, attackers.run_all_attacks(pod.server.address), report)


def test_no_request_fails_during_promotions_under_load(tiny_model, report):
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
