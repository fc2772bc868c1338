"""Common HTTP clients with their options: curl, Java's HttpClient, Python's libraries."""

import gzip
import http.client
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
import venv
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

BODY = json.dumps({"instances": [np.full((4, 4, 3), 255).tolist()]})
PREDICTION = {"predictions": [[0, 1]]}
LARGE = b" " * 2_000_000  # above the limit of 100,000 bytes
JAVA = Path(__file__).with_name("Client.java")
LIBRARIES = Path(__file__).with_name("library_clients.py")
REQUIREMENTS = Path(__file__).parents[3] / "requirements" / "clients.txt"


def requires(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        not shutil.which(program), reason=f"NOT RUN: {program}, whose HTTP client is tested, is not installed"
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bodies")
    for name, data in {
        "json": BODY.encode(),
        "gzip": gzip.compress(BODY.encode()),
        "deflate": zlib.compress(BODY.encode()),
        "large": LARGE,
    }.items():
        (folder / name).write_bytes(data)
    return folder


PREDICT, MODEL = "/v1/models/tiny:predict", "/v1/models/tiny"
CURL = [
    (200, "--data-binary @json", PREDICT),
    (200, "--data-binary @json --http2", PREDICT),
    (200, "--data-binary @json --http1.0", PREDICT),
    (200, "--data-binary @json --http0.9", PREDICT),
    (200, "--data-binary @json --compressed --raw", PREDICT),
    (200, "--json @json", PREDICT),
    (200, "-X POST -T json", PREDICT),
    (200, "-X POST -T - -H Content-Type:", PREDICT),  # stdin is sent in chunks
    (200, "--data-binary @json -H Expect:100-continue --expect100-timeout 30", PREDICT),
    (200, "--data-binary @json -H Content-Type:text/plain", PREDICT),
    (200, "--data-binary @gzip -H Content-Encoding:gzip", PREDICT),
    (200, "--data-binary @deflate -H Content-Encoding:deflate", PREDICT),
    (200, "--data-binary @json -H TE:trailers -H Connection:TE", PREDICT),
    (200, "--data-binary @json", f"{PREDICT}?x=1#y"),
    (200, "--data-binary @json", "/v1/models/%74iny%3Apredict"),
    (200, "-I", "/"),
    (200, "-I", "/v2/health/ready"),
    (200, "-I --http2", "/metrics"),
    (200, "-r 0-3 -z 2001-01-01", MODEL),
    (400, "--data-urlencode instances=[1]", PREDICT),
    (400, "-d {}", PREDICT),
    (404, "--path-as-is", "/v1/../v1/models/tiny"),
    (404, "--data-binary @large", "/v1/models/other:predict"),
    (405, "-G -d instances=1", PREDICT),
    (405, "-I", PREDICT),
    (405, "-X OPTIONS -H Origin:https://a.example", PREDICT),
    (405, "-T json", PREDICT),
    (413, "--data-binary @large", PREDICT),  # waits a second for 100 Continue
    (413, "--data-binary @large -H Expect:", PREDICT),
    (413, "--data-binary @large -H Expect: --http2", PREDICT),
    (415, "-F image=@json", PREDICT),
]


@requires("curl")
@pytest.mark.parametrize(("status", "options", "path"), CURL, ids=lambda value: str(value))
def test_curl_gets_the_status_of_each_request(image_server, files, status, options, path):
    command = ["curl", "-sS", "-m", "60", "-w", r"\n%{http_code}", *options.split(), image_server.url + path]
    with (files / "json").open() as stdin:
        result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=files, stdin=stdin)
    text, _, code = result.stdout.rpartition("\n")
    assert int(code) == status
    if status != 200 and "-I" not in options:
        assert json.loads(text)["error"]
    elif path.endswith(":predict"):
        assert status != 200 or json.loads(text) == PREDICTION


@requires("curl")
def test_curl_with_http_2_prior_knowledge_is_refused(image_server, files):
    command = [
        "curl",
        "-sS",
        "-m",
        "60",
        "--http2-prior-knowledge",
        "--data-binary",
        "@json",
        image_server.url,
    ]
    assert subprocess.run(command, capture_output=True, check=False, cwd=files).returncode
    assert image_server.predict([np.full((4, 4, 3), 255).tolist()]).json() == PREDICTION


@requires("java")
def test_java_gets_the_status_of_each_request(image_server):
    command = ["java", "-XX:TieredStopAtLevel=1", str(JAVA), image_server.url + MODEL, BODY]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    results = [line.split("\t") for line in result.stdout.splitlines()]
    expected = {"large": "413", "large chunked": "413", "unknown": "404"}
    assert len(results) == 56
    for name, status, text in results:
        case = name.partition(" ")[2]
        assert (name, status) == (name, expected.get(case, "200"))
        if status != "200":
            assert json.loads(text)["error"]
        else:
            assert text == "" if case == "head" else json.loads(text) == PREDICTION


def post_with_urllib(url: str, body: bytes) -> tuple[int, Any]:
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(urllib.request.Request(url, body), timeout=60)  # noqa: S310
    return error.value.code, json.load(error.value)


def post_with_http_client(url: str, body: bytes) -> tuple[int, Any]:
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.request("POST", f"/{path}", body)
    response = connection.getresponse()
    result = response.status, json.load(response)
    connection.request("GET", MODEL)  # on the same connection
    assert connection.getresponse().status == 200
    return result


def post_with_requests(url: str, body: bytes) -> tuple[int, Any]:
    response = requests.post(url, data=body, timeout=60)
    return response.status_code, response.json()


@pytest.mark.parametrize("client", [post_with_urllib, post_with_http_client, post_with_requests])
@pytest.mark.parametrize(("path", "status"), [(PREDICT, 413), ("/v1/models/other:predict", 404)])
def test_an_early_refusal_reaches_a_client_that_is_still_sending(image_server, client, path, status):
    for _ in range(5):
        code, body = client(image_server.url + path, LARGE)
        assert code == status
        assert body["error"]


@requires("chromium")
@pytest.mark.soak
def test_the_page_accepts_images_only_for_image_models(image_server, number_server):
    for server, hidden in ((image_server, "form"), (number_server, "drop")):
        command = [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--virtual-time-budget=5000",
            "--dump-dom",
            server.url,
        ]
        page = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert re.findall(r'id="(drop|form)"[^>]* hidden=""', page) == [hidden]
        assert "Version 1 returns the probability of each class: dark, bright." in page


@pytest.mark.soak  # installs half a gigabyte
def test_the_requests_of_tritonclient_and_kserve_succeed(image_server, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    install = [python, "-m", "pip", "install", "-q", "--require-hashes", "-r", REQUIREMENTS]
    installed = subprocess.run(install, capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr
    result = subprocess.run(
        [python, LIBRARIES, image_server.url], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
