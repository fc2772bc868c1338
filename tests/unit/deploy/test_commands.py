"""The commands `deploy` and `rollout`, and the component of Kubeflow Pipelines."""

import json
from types import SimpleNamespace

import pytest

from modelyard.components.artifacts import Identity
from modelyard.components.deploy import deployer
from modelyard.components.deploy.component import deploy as component
from modelyard.pipelines.cli import invoke
from modelyard.pipelines.compile.compiler import create_specs
from modelyard.pipelines.config.config import load
from modelyard.pipelines.serving import platforms


@pytest.fixture
def command(controller, monkeypatch, capsys):
    """Run a command for the model; return its output."""

    def find(*_, log=controller.log, **__):
        controller.log = log
        return controller

    monkeypatch.setattr(platforms, "find_controller", find)

    def run(*arguments):
        try:
            code = invoke([*arguments, "-e", "kind"])
        except SystemExit as error:
            code = error.code or 0
        assert code == 0
        return capsys.readouterr().out

    return run


def test_deploy_status_promote_and_abort(command, controller, publish, models, state):
    for _ in range(3):
        publish()
    assert command("deploy", "digits", "1").startswith("promote: deployed manually")
    status = command("rollout", "status", "digits")
    assert "version 1, 0 of 0 ready, serve:1" in status
    assert "in-memory" in status

    controller.platform.claim("killed", controller.platform.describe_servers(2, models.digest("digits", 2)))
    assert json.loads(command("rollout", "status", "digits", "--output", "json"))["candidate"]["version"] == 2
    assert "abandoned" in command("rollout", "status", "digits")
    assert command("rollout", "promote", "digits").startswith("promote: promoted manually")
    assert state() == (2, 2, None, True)

    controller.platform.claim("killed", controller.platform.describe_servers(3, models.digest("digits", 3)))
    assert "Version 3" in command("rollout", "abort", "digits")
    assert "no candidate" in command("rollout", "abort", "digits")
    assert json.loads(command("rollout", "abort", "digits", "--output", "json"))["aborted"] is None
    deployed = json.loads(command("deploy", "digits", "3", "--output", "json"))
    assert (deployed["decision"], deployed["version"]) == ("promote", 3)
    assert state() == (3, 3, None, True)


def test_component_passes_its_arguments(monkeypatch):
    calls = []
    monkeypatch.setattr(deployer, "deploy", lambda *arguments: calls.append(arguments) or 7)
    spec, identity = create_specs(load(environ={}))["deploy"], Identity(run="r", data="d", champion=4)
    model, history, evaluation, outcome = (SimpleNamespace(path=f"/{number}") for number in range(4))
    texts = spec.to_json(), identity.model_dump_json()
    assert component.python_func(model, history, evaluation, *texts, outcome) == 7
    assert calls == [("/0", "/1", "/2", spec, identity, "/3")]
