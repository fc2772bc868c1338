import pytest

from modelyard.components.serve.app import RequestTarget, resolve
from modelyard.components.serve.replies import HttpError


@pytest.mark.parametrize(
    ("method", "path", "target"),
    [
        ("POST", "/v1/models/digits:predict", RequestTarget("predict", "digits", None)),
        ("POST", "/v1/models/digits/versions/7:predict", RequestTarget("predict", "digits", "7")),
        ("GET", "/v1/models/digits", RequestTarget("status", "digits", None)),
        ("GET", "/v1/models/digits/versions/7", RequestTarget("status", "digits", "7")),
        ("GET", "/v2", RequestTarget("server", None, None)),
        ("GET", "/v2/models/digits", RequestTarget("metadata", "digits", None)),
        ("GET", "/v2/models/digits/versions/7", RequestTarget("metadata", "digits", "7")),
        ("GET", "/v2/models/digits/ready", RequestTarget("model_ready", "digits", None)),
        ("POST", "/v2/models/digits/infer", RequestTarget("infer", "digits", None)),
        ("POST", "/v2/models/digits/versions/7/infer", RequestTarget("infer", "digits", "7")),
        ("GET", "/", RequestTarget("page", None, None)),
    ],
)
def test_paths_are_resolved(method, path, target):
    assert resolve(method, path) == target


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models/digits:predict", 405),
        ("POST", "/metrics", 405),
        ("GET", "/v1/models/a/b:predict", 404),
        ("POST", "/v1/models/:predict", 404),
        ("GET", "/nothing", 404),
        ("GET", "/" + "a" * 100_000, 404),
    ],
)
def test_unknown_paths_and_methods_are_refused(method, path, status):
    with pytest.raises(HttpError) as refused:
        resolve(method, path)
    assert refused.value.reply.status == status
    assert len(str(refused.value)) < 400
    assert ("use " in str(refused.value)) or ("/v1/models/NAME:predict" in str(refused.value))


def test_405_has_the_header_allow():
    with pytest.raises(HttpError) as refused:
        resolve("GET", "/v2/models/digits/infer")
    assert refused.value.reply.headers == ((b"allow", b"POST"),)
