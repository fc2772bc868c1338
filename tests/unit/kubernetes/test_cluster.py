"""Logs and proxied requests with an API server that is busy, unavailable or loses connections."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from threading import Event

import pytest
from kubernetes.client import ApiClient, Configuration

from modelyard.components.errors import ClusterError, ConfigError
from modelyard.components.kubernetes import cluster as client
from modelyard.components.kubernetes.cluster import Cluster, ProxiedServer, connect
from modelyard.components.server import NoServerError
from tests.http_server import Handler, serve
from tests.kubeconfig import create_kubeconfig, use_cluster

Reply = int | tuple[int, bytes] | list[bytes]
CUT = b""
SILENT = b"SILENT"


@pytest.fixture
def start_cluster(monkeypatch) -> Iterator[Callable[..., tuple[Cluster, list[str]]]]:
    """Return a function that starts an API server and returns its cluster and the list of its requests.

    The server sends the replies in order, and repeats the last one. A reply is a status, a status and a body,
    or the parts of a chunked body.
    """
    monkeypatch.setattr(client, "RETRY_INTERVAL", 0.01)
    test_ended = Event()

    with ExitStack() as servers:

        def start(*replies: Reply) -> tuple[Cluster, list[str]]:
            remaining, requests = list(replies), []

            class ApiServer(Handler):
                protocol_version = "HTTP/1.1"

                def handle_request(self) -> None:
                    requests.append(f"{self.headers['Authorization']} {self.path}")
                    reply = remaining.pop(0) if len(remaining) > 1 else remaining[0]
                    self.close_connection = True
                    if not isinstance(reply, list):
                        self.respond(*reply if isinstance(reply, tuple) else (reply,))
                        return
                    self.send_response(200)
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    for part in reply:
                        if part == SILENT:
                            test_ended.wait()
                        if part in (CUT, SILENT):
                            return
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                    self.wfile.write(b"0\r\n\r\n")

            settings = Configuration(host=servers.enter_context(serve(ApiServer)))
            settings.api_key["authorization"] = "Bearer token"
            settings.retries = False
            return Cluster(ApiClient(settings), "runs", in_cluster=False), requests

        yield start
        test_ended.set()


def test_log_continues_after_a_lost_connection(start_cluster):
    cluster, requests = start_cluster(503, [b"one\ntw", CUT], 429, [b"one\ntwo\nthr", b"ee"])
    assert list(cluster.stream_log("r1-train", "step", ended=True)) == ["one", "two", "three"]
    path = "Bearer token /api/v1/namespaces/runs/pods/r1-train/log?container=step&follow=true"
    assert requests == [path] * 4


def test_incomplete_last_line_is_left_for_the_next_stream(start_cluster):
    cluster, _ = start_cluster([b"one\ntw"], [b"one\ntwo"])
    assert list(cluster.stream_log("r1-train", "step")) == ["one"]
    assert list(cluster.stream_log("r1-train", "step", skip=1, ended=True)) == ["two"]


def test_log_skips_lines_that_were_read(start_cluster):
    cluster, _ = start_cluster([b"one\n", CUT], [b"one\ntwo\nthree\n"])
    assert list(cluster.stream_log("r1-train", "step", skip=1)) == ["two", "three"]


def test_log_is_requested_again_after_a_time_out(start_cluster, monkeypatch):
    monkeypatch.setattr(client, "TIMEOUT", (5.0, 0.05))
    cluster, _ = start_cluster([b"one\n", SILENT], [b"one\ntwo\n"])
    assert list(cluster.stream_log("r1-train", "step")) == ["one", "two"]


@pytest.mark.parametrize("status", [400, 404, 500])
def test_missing_or_unreadable_log_ends(start_cluster, monkeypatch, status):
    monkeypatch.setattr(client, "RETRY_SECONDS", 0.1)
    cluster, _ = start_cluster(status)
    assert list(cluster.stream_log("r1-train", "step")) == []


def test_forbidden_log_is_an_error(start_cluster):
    cluster, _ = start_cluster(403)
    with pytest.raises(ClusterError, match="403"):
        list(cluster.stream_log("r1-train", "step"))


def request(cluster, method):
    return ProxiedServer(cluster, "Pod", "digits-stable-1").request(method, "/metrics", b"", {})


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_request_is_retried_after_a_lost_connection(start_cluster, method):
    cluster, requests = start_cluster([CUT], [b"wh", CUT], [b"whole"])
    assert request(cluster, method) == (200, b"whole")
    assert len(requests) == 3


def test_response_of_the_proxied_server_is_not_retried(start_cluster):
    cluster, requests = start_cluster(503)
    assert request(cluster, "GET") == (503, b"")
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("status", "kind"), [(503, NoServerError), (404, NoServerError), (403, ClusterError)]
)
def test_error_of_the_api_server_is_raised(start_cluster, status, kind):
    cluster, _ = start_cluster((status, b'{"kind": "Status", "message": "no endpoints"}'))
    with pytest.raises(ClusterError, match="no endpoints") as raised:
        request(cluster, "GET")
    assert type(raised.value) is kind


def test_silent_server_has_status_504(start_cluster, monkeypatch):
    monkeypatch.setattr(client, "TIMEOUT", (5.0, 0.05))
    monkeypatch.setattr(client, "RETRY_SECONDS", 0.0)
    cluster, _ = start_cluster([SILENT])
    assert request(cluster, "GET") == (504, b"no response within 0.05 s")


KUBECONFIG = create_kubeconfig("https://127.0.0.1:1")
LOGIN = {"apiVersion": "client.authentication.k8s.io/v1", "command": "false", "interactiveMode": "Never"}
FAILING_LOGIN = create_kubeconfig("https://127.0.0.1:1", exec=LOGIN)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "does not exist"),
        ("", "is empty"),
        ("a: [", "ParserError"),
        ("[]", "TypeError"),
        (json.dumps({**KUBECONFIG, "current-context": "missing"}), "missing"),
        (json.dumps(KUBECONFIG), "127.0.0.1:1 does not respond"),
        ("#" * (2**20 + 1), "config cannot be used: it has more than 1,048,576 bytes"),
        (json.dumps(FAILING_LOGIN), "credential plugin .* failed: exec: process returned 1. Log in"),
    ],
)
def test_unusable_kubeconfig_fails_at_once(tmp_path, monkeypatch, config, reason):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    if config is not None:
        (tmp_path / "config").write_text(config)
    if config == json.dumps(FAILING_LOGIN):
        monkeypatch.setattr(client, "_check_reachable", lambda: None)
    with pytest.raises(ClusterError, match=reason) as error:
        connect("runs")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:1", "socks5://127.0.0.1:1"])
def test_first_connection_is_not_retried(tmp_path, monkeypatch, proxy):
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.setattr(client, "TIMEOUT", (0.2, 0.2))
    server = "https://cluster.invalid"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = server if proxy else f"https://127.0.0.1:{silent.getsockname()[1]}"
        use_cluster(monkeypatch, tmp_path, server)
        with pytest.raises(ConfigError if "socks" in proxy else ClusterError) as error:
            connect("runs").list_objects("Pod")
    assert ("HTTP prox" if "socks" in proxy else "proxy" if proxy else "timed out") in str(error.value)


def test_error_names_an_unreachable_cluster(start_cluster, monkeypatch):
    monkeypatch.setattr(client, "RETRY_SECONDS", 0.1)
    cluster, _ = start_cluster([CUT])
    with pytest.raises(ClusterError, match=r"The cluster http://127\.0\.0\.1:\d+ does not respond"):
        request(cluster, "GET")
