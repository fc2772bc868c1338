"""A step that exceeds its memory limit."""

import re

import pytest
import yaml

from modelyard.components.errors import ClusterError
from modelyard.components.kubernetes.cluster import connect
from modelyard.pipelines.runners.pods import pod as pods
from modelyard.pipelines.runners.pods.pod import TEMPLATE

pytestmark = pytest.mark.soak  # half a minute; rollout/test_rollback.py has a server that is killed

GREEDY = "import time; held = bytearray(50_000_000); time.sleep(30); held += bytearray(500_000_000)"


@pytest.fixture
def greedy(images):
    """The pod of a step that uses 60 MB until its node has measured that, and then too much."""
    pod = yaml.safe_load(TEMPLATE.read_text())
    pod["metadata"]["name"] = "greedy"
    pod["spec"]["securityContext"] |= {"runAsUser": 65532, "runAsNonRoot": True}
    fetch, step = pod["spec"]["initContainers"]
    (put,) = pod["spec"]["containers"]
    for container in (fetch, step, put):
        container.update(image=images["fingerprint"], command=["true"])
    step.update(command=["python3", "-c", GREEDY], resources={"limits": {"memory": "100Mi"}})
    return pod


def test_out_of_memory_step_has_its_limit_and_last_use(greedy):
    with pytest.raises(ClusterError) as ended:
        pods.run_pod(connect("modelyard-runs"), greedy, start_timeout=60)
    match = re.search(r"its limit is 100 MiB, and it last used ([\d.]+) MiB", str(ended.value))
    assert match, ended.value
    assert 45 < float(match[1]) <= 100
