"""A step that exceeds its memory limit."""

import re

import pytest
import yaml

from modelyard.components.errors import ClusterError
from modelyard.components.kubernetes.cluster import connect
from modelyard.pipelines.runners.pods import pod as pods
from modelyard.pipelines.runners.pods.pod import TEMPLATE

pytestmark = pytest.mark.soak  # half a minute; rollout/test_rollback.py has a server that is killed

SCRIPT = "import time; data = bytearray(50_000_000); time.sleep(30); data += bytearray(500_000_000)"


@pytest.fixture
def pod(images):
    """The pod of a step that uses 60 MB until its node has measured that, and then too much."""
    pod = yaml.safe_load(TEMPLATE.read_text())
    pod["metadata"]["name"] = "out-of-memory"
    pod["spec"]["securityContext"] |= {"runAsUser": 65532, "runAsNonRoot": True}
    fetch, step = pod["spec"]["initContainers"]
    (put,) = pod["spec"]["containers"]
    for container in (fetch, step, put):
        container.update(image=images["fingerprint"], command=["true"])
    step.update(command=["python3", "-c", SCRIPT], resources={"limits": {"memory": "100Mi"}})
    return pod


def test_error_of_an_out_of_memory_step_has_its_limit_and_last_use(pod):
    with pytest.raises(ClusterError) as error:
        pods.run_pod(connect("modelyard-runs"), pod, start_timeout=60)
    match = re.search(r"its limit is 100 MiB, and it last used ([\d.]+) MiB", str(error.value))
    assert match, error.value
    assert 45 < float(match[1]) <= 100
