"""The Deployments and Services of a model, from their templates."""

import json

import pytest

from modelyard.components.deploy.platforms import objects
from modelyard.components.deploy.settings import Resources, Rollout, Target
from modelyard.components.errors import ConfigError
from modelyard.components.serve.settings import Serving

TARGET = Target(platform="deployment", image="r/serve@sha256:1", resources=Resources(cpu="2", memory="1Gi"))
DIGEST = "d" * 64


def deployment(target=TARGET, rollout=None, store='{"url": "gs://b"}', serving=None, track="candidate"):
    template = objects.pod_template(
        "digits",
        7,
        DIGEST,
        image=target.image,
        target=target,
        rollout=rollout or Rollout(),
        store=store,
        serving=serving or {},
    )
    return objects.deployment("digits", track, "serving", template)


def test_server_is_pinned_by_version_and_digest():
    manifest = deployment()
    args = manifest["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[:6] == ["--name", "digits", "--version", "7", "--digest", DIGEST]
    assert objects.version(manifest) == 7
    assert objects.annotation(manifest, objects.DIGEST_ANNOTATION) == DIGEST


def test_server_gets_the_serving_section_except_host_and_port():
    serving = Serving(host="127.0.0.1", port=1, max_batch=9, linger=30.0, drain_timeout=25.0)
    manifest = deployment(serving=serving.model_dump())["spec"]["template"]["spec"]
    section = Serving.from_json(json.dumps(json.loads(manifest["containers"][0]["args"][-1])))
    assert (section.host, section.port, section.max_batch, section.linger) == ("0.0.0.0", 8501, 9, 30.0)
    assert manifest["terminationGracePeriodSeconds"] >= section.linger + section.drain_timeout


def test_secrets_are_mounted_and_their_paths_are_passed():
    target = TARGET.model_copy(update={"token_secret": "token-secret", "tls_secret": "tls-secret"})
    serving = {"token_file": "local.pem", "tls_cert": "local.pem", "tls_key": "local.pem"}
    manifest = deployment(target, serving=serving)["spec"]["template"]["spec"]
    container, volumes = manifest["containers"][0], {volume["name"]: volume for volume in manifest["volumes"]}
    section = Serving.from_json(container["args"][-1])
    files = {mount["mountPath"]: volumes[mount["name"]].get("secret") for mount in container["volumeMounts"]}
    for path, secret in (
        (section.token_file, "token-secret"),
        (section.tls_cert, "tls-secret"),
        (section.tls_key, "tls-secret"),
    ):
        folder, _, file = path.rpartition("/")
        assert files[folder]["secretName"] == secret
        assert file in [item["path"] for item in files[folder]["items"]]
        assert files[folder]["defaultMode"] & 0o007 == 0
    assert manifest["securityContext"]["fsGroup"] > 0, "without fsGroup, only root can read the file"
    probes = [container[f"{name}Probe"]["httpGet"]["scheme"] for name in ("startup", "readiness", "liveness")]
    assert probes == ["HTTPS"] * 3
    assert objects.uses_tls({"spec": manifest})
    assert not objects.uses_tls(deployment()["spec"]["template"])


@pytest.mark.parametrize("serving", [{"token_file": "t"}, {"tls_cert": "c", "tls_key": "k"}])
def test_token_or_tls_in_the_section_requires_a_secret(serving):
    with pytest.raises(ConfigError, match=r"environment\.serving\.t\w+_secret"):
        deployment(serving=serving)


def test_server_on_a_cluster_has_a_minimum_linger():
    section = Serving.from_json(deployment()["spec"]["template"]["spec"]["containers"][0]["args"][-1])
    assert section.linger == objects.MIN_LINGER


def test_startup_probe_outlasts_ready_timeout():
    probe = deployment(rollout=Rollout(ready_timeout=500.0))["spec"]["template"]["spec"]["containers"][0]
    assert probe["startupProbe"]["failureThreshold"] * probe["startupProbe"]["periodSeconds"] > 500


def test_values_are_not_substituted_again():
    manifest = deployment(store="${digest} $name {}")
    assert "${digest} $name {}" in manifest["spec"]["template"]["spec"]["containers"][0]["args"]


@pytest.mark.parametrize("canary", [True, False])
def test_service_selects_the_candidate_only_in_a_canary(canary):
    candidate = deployment()["spec"]["template"]["metadata"]["labels"]
    selector = objects.service("digits", "serving", canary)["spec"]["selector"]
    assert (selector.items() <= candidate.items()) is canary


def test_substitution_keeps_types():
    manifest = deployment(target=TARGET.model_copy(update={"resources": Resources(cpu="2", memory="1Gi")}))
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["requests"] == {"cpu": "2", "memory": "1Gi"}
    assert manifest["metadata"]["labels"][objects.VERSION_LABEL] == "7"
    assert isinstance(manifest["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], int)


def test_fingerprint_is_the_same_in_both_tracks():
    stable, candidate = (deployment(track=track) for track in ("stable", "candidate"))
    fingerprints = [
        objects.annotation(track["spec"]["template"], objects.TEMPLATE_ANNOTATION)
        for track in (stable, candidate)
    ]
    assert len(set(fingerprints)) == 1
    assert stable["spec"]["template"]["metadata"]["labels"][objects.TRACK_LABEL] == "stable"
    assert objects.matches_template(stable, stable["spec"]["template"])
    other = deployment(target=TARGET.model_copy(update={"image": "serve:2"}))
    assert not objects.matches_template(other, stable["spec"]["template"])
