"""All attacks on the server in a pod with default resources: `make soak` with a cluster."""

from dataclasses import replace

import pytest

from modelyard.components import artifacts
from modelyard.components.artifacts import Golden
from modelyard.components.deploy.settings import Resources
from tests.integration.serve import attackers
from tests.integration.serve.conftest import IMAGE_SIGNATURE, NAME
from tests.onnx_models import save_mean_model
from tests.versions import publish

pytestmark = [pytest.mark.cluster, pytest.mark.soak, pytest.mark.timeout(3600)]


def test_default_pod_under_all_attacks_is_never_restarted(new_workspace, capsys, tmp_path):
    workspace = new_workspace()
    target = workspace.platform.target.model_copy(update={"resources": Resources()})
    workspace = replace(workspace, platform=replace(workspace.platform, name=NAME, target=target))
    save_mean_model(tmp_path / "model.onnx", IMAGE_SIGNATURE)
    dark = [[[0] * 3] * 4] * 4
    golden = Golden(problem="classification", instances=[dark], predictions=[[1.0, 0.0]])
    artifacts.write(tmp_path / "golden.json", golden)
    files = {name: tmp_path / name for name in ("model.onnx", "golden.json")}
    workspace.deploy(publish(workspace.models, NAME, files, IMAGE_SIGNATURE))
    outcomes = attackers.run_all_attacks(workspace.address)
    with capsys.disabled():
        print(f"\n{sum(outcomes.values())} outcomes: {dict(outcomes.most_common(12))}", end="")  # noqa: T201
    assert not [outcome for outcome in outcomes if outcome.startswith("BAD")]
    (pod,) = workspace.platform.cluster.list_objects("Pod", f"app.kubernetes.io/name={NAME}")
    (container,) = pod["status"]["containerStatuses"]
    assert container["ready"]
    assert container["restartCount"] == 0
