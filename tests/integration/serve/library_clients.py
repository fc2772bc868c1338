"""Requests of tritonclient and the client of KServe to the model `tiny` at a URL.

test_clients.py runs this script in a venv without pytest.
"""

import asyncio
import itertools
import sys
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import tritonclient.http as triton
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from tritonclient.utils import InferenceServerException

URL = sys.argv[1]
IMAGES = np.stack([np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)])
PREDICTIONS = [[1, 0], [0, 1]]


def check_triton() -> None:
    client = triton.InferenceServerClient(URL.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata()["name"] == "modelyard"
    assert client.get_model_metadata("tiny", "1")["outputs"][0]["name"] == "probabilities"

    def inputs(binary: bool = True) -> Any:
        tensor = triton.InferInput("pixels", list(IMAGES.shape), "UINT8")
        tensor.set_data_from_numpy(IMAGES, binary_data=binary)
        return tensor

    def check(reply: Any) -> None:
        np.testing.assert_array_equal(reply.as_numpy("probabilities"), PREDICTIONS)

    for binary_in, binary_out in itertools.product((True, False), repeat=2):
        output = triton.InferRequestedOutput("probabilities", binary_data=binary_out)
        reply = client.infer("tiny", [inputs(binary_in)], outputs=[output], request_id="q7")
        assert reply.get_response()["id"] == "q7"
        check(reply)
    for request, response in itertools.product((None, "gzip", "deflate"), repeat=2):
        check(
            client.infer(
                "tiny",
                [inputs()],
                model_version="1",
                request_compression_algorithm=request,
                response_compression_algorithm=response,
            )
        )
    check(client.infer("tiny", [inputs()], query_params={"a": 1}, headers={"x-request-timeout": "30"}))
    for request in [client.async_infer("tiny", [inputs()]) for _ in range(8)]:
        check(request.get_result())

    shared = triton.InferInput("pixels", list(IMAGES.shape), "UINT8")
    shared.set_shared_memory("region", IMAGES.nbytes)
    into_shared = triton.InferRequestedOutput("probabilities")
    into_shared.set_shared_memory("region", 16)
    classes = triton.InferRequestedOutput("probabilities", class_count=1)
    for status, call in (
        ("400", lambda: client.infer("tiny", [shared])),
        ("400", lambda: client.infer("tiny", [inputs()], outputs=[into_shared])),
        ("400", lambda: client.infer("tiny", [inputs()], outputs=[classes])),
        ("400", lambda: client.infer("tiny", [inputs(), inputs()])),
        ("404", lambda: client.infer("tiny", [inputs()], model_version="9")),
        ("404", lambda: client.register_system_shared_memory("region", "/key", 96)),
        ("404", client.get_system_shared_memory_status),
        ("404", client.get_model_repository_index),
        ("404", lambda: client.load_model("tiny")),
        ("404", lambda: client.get_model_config("tiny")),
        ("404", client.get_inference_statistics),
    ):
        check_refused(call, status)


def check_refused(call: Callable[[], Any], status: str) -> None:
    actual_status = None
    try:
        call()
    except InferenceServerException as error:
        actual_status = error.status()
    assert actual_status == status


async def check_kserve(protocol: str) -> None:
    client = InferenceRESTClient(RESTConfig(protocol=protocol, retries=0))
    assert await client.is_server_live(URL)
    assert await client.is_model_ready(URL, "tiny")
    if protocol == "v1":
        body = {"instances": IMAGES.tolist()}
        assert await client.infer(URL, body, model_name="tiny") == {"predictions": PREDICTIONS}
        actual_status = None
        try:
            await client.explain(URL, "tiny", body)
        except httpx.HTTPStatusError as error:
            actual_status = error.response.status_code
        assert actual_status == 404
        return
    assert await client.is_server_ready(URL)
    assert not await client.is_model_ready(URL, "other")
    for binary_in, binary_out in itertools.product((True, False), repeat=2):
        tensor = InferInput("pixels", list(IMAGES.shape), "UINT8")
        tensor.set_data_from_numpy(IMAGES, binary_data=binary_in)
        parameters = {"binary_data_output": binary_out}
        request = InferRequest("tiny", [tensor], request_id="q7", parameters=parameters)
        reply = await client.infer(URL, request, model_name="tiny")
        assert reply.id == "q7"
        np.testing.assert_array_equal(reply.outputs[0].as_numpy(), PREDICTIONS)


check_triton()
for name in ("v1", "v2"):
    asyncio.run(check_kserve(name))
