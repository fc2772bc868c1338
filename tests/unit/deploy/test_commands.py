"""The commands `deploy` and `rollout`, and the component of the step deploy."""

from types import SimpleNamespace

import pytest

from modelyard.components.artifacts import Identity
from modelyard.components.deploy import deployer
from modelyard.components.deploy.component import deploy as component
from modelyard.pipelines.compile.compiler import create_specs
from modelyard.pipelines.config.config import load
from modelyard.pipelines.serving import platforms
from tests.command_line import CommandLine


@pytest.fixture
def command(controller, monkeypatch, capsys):
    """The command line; its commands use `controller`."""

    def find_controller(*_, log=controller.log, **__):
        controller.log = log
        return controller

    monkeypatch.setattr(platforms, "find_controller", find_controller)

    return CommandLine(capsys, "-e", "kind")


def test_deploy_status_promote_and_abort(command, controller, publish, models, state):
    for _ in range(3):
        publish()
    assert command("deploy", "digits", "1").out.startswith("promote: deployed manually")
    status = command("rollout", "status", "digits").out
    assert "version 1, 0 of 0 ready, serve:1" in status
    assert "in-memory" in status

    controller.platform.claim("killed", controller.platform.describe_servers(2, models.digest("digits", 2)))
    assert command.json("rollout", "status", "digits")["candidate"]["version"] == 2
    assert "abandoned" in command("rollout", "status", "digits").out
    assert command("rollout", "promote", "digits").out.startswith("promote: promoted manually")
    assert state() == (2, 2, None, True)

    controller.platform.claim("killed", controller.platform.describe_servers(3, models.digest("digits", 3)))
    assert "version 3" in command("rollout", "abort", "digits").out
    assert "no candidate" in command("rollout", "abort", "digits").out
    assert command.json("rollout", "abort", "digits")["version"] is None
    deployed = command.json("deploy", "digits", "3")
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
