"""How much memory a container uses while it runs: when it was killed for it, nobody knows that any more."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from modelyard.components.errors import ClusterError
from modelyard.components.kubernetes.cluster import Cluster

PAUSE = 3.0


@contextmanager
def watched(cluster: Cluster, pod: dict[str, Any], container: str) -> Iterator[Callable[[], float | None]]:
    """Look at a container's memory during a block; give what tells the bytes that were seen last, if any.

    Args:
        cluster: with the pod's namespace.
        pod: the pod, on its node.
        container: which of its containers.
    """
    seen: list[float] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            try:
                used = cluster.memory(pod, container)
            except ClusterError:
                return  # it may not be read, or the cluster is away: nothing depends on it
            seen[:] = [used] if used else seen
            ended.wait(PAUSE)

    threading.Thread(target=look, name=f"memory of {container}", daemon=True).start()
    try:
        yield lambda: seen[-1] if seen else None
    finally:
        ended.set()
