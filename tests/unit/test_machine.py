"""Proxies, certificates and the Keras configuration, from environment variables."""

import json
import os
from pathlib import Path

import pytest

from modelyard.components.errors import ConfigError, ServeError
from modelyard.components.machine import (
    check_keras,
    find_certificates,
    find_proxy,
    is_loopback,
    read_keras_config,
)
from modelyard.components.server import HttpServer

PROXY = "http://proxy:3128"


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Remove the variables of the user."""
    for name in os.environ:
        if name.lower().endswith("_proxy") or "_CA_BUNDLE" in name or "SSL_CERT" in name or "KERAS" in name:
            monkeypatch.delenv(name)
    return monkeypatch


LOOPBACK = {
    **dict.fromkeys(
        ["http://localhost:1/x", "http://127.3.2.1/x", "http://[::1]/x", "http://0.0.0.0:1"], True
    ),
    **dict.fromkeys(["http://x.localhost", "http://LOCALHOST./"], True),
    **dict.fromkeys(["http://host/localhost", "http://127.example.com", "http://[/x", "/localhost"], False),
}


@pytest.mark.parametrize(("url", "loopback"), LOOPBACK.items())
def test_loopback_urls_are_recognized(url: str, loopback: bool) -> None:
    assert is_loopback(url) == loopback


@pytest.mark.parametrize("url", [url for url, loopback in LOOPBACK.items() if loopback])
def test_loopback_and_cluster_urls_need_no_proxy(variables: pytest.MonkeyPatch, url: str) -> None:
    for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        variables.setenv(name, "socks5://127.0.0.1:1080")
    assert find_proxy(url) is None
    assert find_proxy("http://ml-pipeline.kubeflow.svc.cluster.local:8888") is None


def test_the_proxy_depends_on_the_scheme(variables: pytest.MonkeyPatch) -> None:
    assert find_proxy("https://example.com") is None
    variables.setenv("ALL_PROXY", "all:1")
    variables.setenv("https_proxy", "http://me:secret@lower:2")
    variables.setenv("HTTPS_PROXY", "upper:3")
    assert find_proxy("http://example.com") == "http://all:1"
    assert find_proxy("https://example.com") == "http://me:secret@lower:2"


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("*", "https://example.com", True),
        ("example.com", "https://example.com/x", True),
        ("example.com", "https://a.example.com", True),
        ("example.com", "https://notexample.com", False),
        (".example.com", "https://a.b.example.com.", True),
        ("*.example.com", "https://a.example.com", True),
        ("EXAMPLE.com", "https://Example.COM", True),
        ("a, example.com ,b", "https://example.com", True),
        ("a example.com", "https://example.com", True),
        ("example.com:8080", "https://example.com:8080", True),
        ("example.com:8080", "https://example.com", False),
        ("example.com:443", "https://example.com", True),
        ("https://example.com", "https://example.com", True),
        ("10.0.0.0/8", "https://10.1.2.3", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("10.1.2.3", "https://10.1.2.3:1", True),
        ("10.1.2.3:1", "https://10.1.2.3:2", False),
        ("fd00::/8", "https://[fd12::1]", True),
        ("fd12::1", "https://[fd12:0::1]:1", True),
        ("[fd12::1]", "https://[fd12::1]", True),
        ("[fd12::1]:1", "https://[fd12::1]:2", False),
        ("::1,[::1],[,:,:x,,", "https://example.com", False),
    ],
)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_no_proxy_may_have_any_form(
    variables: pytest.MonkeyPatch, variable: str, no_proxy: str, url: str, direct: bool
) -> None:
    variables.setenv("HTTPS_PROXY", PROXY)
    variables.setenv(variable, no_proxy)
    assert find_proxy(url) == (None if direct else PROXY)


def test_socks_needs_a_library_that_supports_it(variables: pytest.MonkeyPatch) -> None:
    variables.setenv("ALL_PROXY", "socks5h://me:secret@127.0.0.1:1080")
    assert find_proxy("https://example.com", "json") == "socks5h://me:secret@127.0.0.1:1080"
    assert find_proxy("https://example.com") is None  # ALL_PROXY is ignored, as in kubectl
    with pytest.raises(
        ConfigError, match=r"ALL_PROXY is socks5h://127\.0\.0\.1, .* PySocks.* example\.com "
    ) as error:
        variables.setattr("modelyard.components.machine.find_spec", lambda _: None)
        find_proxy("https://example.com", "socks")
    assert "secret" not in str(error.value)
    variables.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(ConfigError, match=r"HTTPS_PROXY .* HTTP proxies only"):
        find_proxy("https://example.com")


@pytest.mark.parametrize(
    "proxy", ["socks4://a:1", "ftp://a", "http://", "http://a:x", "http://[", "http://a:0"]
)
def test_an_invalid_proxy_is_refused_when_it_is_needed(variables: pytest.MonkeyPatch, proxy: str) -> None:
    variables.setenv("HTTP_PROXY", proxy)
    assert find_proxy("http://localhost") is None
    with pytest.raises(ConfigError, match=r"HTTP_PROXY is .* NO_PROXY"):
        find_proxy("http://example.com", "json")


def test_certificates_that_cannot_be_used_are_named(variables: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find_certificates() is None
    variables.setenv("SSL_CERT_DIR", str(tmp_path))
    assert find_certificates() == str(tmp_path)
    (tmp_path / "empty").touch()
    for name, reason in {"CURL_CA_BUNDLE": "no certificate", "REQUESTS_CA_BUNDLE": "No such file"}.items():
        variables.setenv(name, str(tmp_path / ("empty" if "no " in reason else "missing")))
        with pytest.raises(ConfigError, match=f"{name} is {tmp_path}.*{reason}"):
            find_certificates()
        with pytest.raises(ConfigError, match=name):
            HttpServer("https://127.0.0.1:1").request("GET", "/", None, {})
        for server in (HttpServer("http://127.0.0.1:1"), HttpServer("https://127.0.0.1:1", verify=False)):
            with pytest.raises(ServeError, match="refused"):
                server.request("GET", "/", None, {})


def test_only_an_unusable_keras_configuration_is_refused(
    variables: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    variables.setenv("KERAS_HOME", str(tmp_path))
    for backend in ("", "tensorflow"):
        variables.setenv("KERAS_BACKEND", backend)
        check_keras()
    other = {"backend": "torch", "floatx": "float16", "image_data_format": "channels_first"}
    (tmp_path / "keras.json").write_text(json.dumps(other))
    check_keras()  # not used
    assert read_keras_config() == (tmp_path / "keras.json", other)
    for invalid in ({"floatx": "float8"}, {"epsilon": 1}, []):
        (tmp_path / "keras.json").write_text(json.dumps(invalid))
        with pytest.raises(ConfigError, match=f"{tmp_path}.* Keras cannot be imported"):
            check_keras()
    for backend in ("torch", "jax"):
        variables.setenv("KERAS_BACKEND", backend)
        variables.setattr("modelyard.components.machine.find_spec", lambda _: None)
        with pytest.raises(ConfigError, match=f"KERAS_BACKEND is {backend}"):
            check_keras()
