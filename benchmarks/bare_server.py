"""A bare ASGI handler with the libraries of components/serve: no checks, limits, metrics or store.

python benchmarks/bare_server.py MODEL.onnx PORT
"""

import json
import sys

import numpy as np
import onnxruntime
import uvicorn
from simdjson import Parser

MODEL, PORT = sys.argv[1], int(sys.argv[2])

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
name, shape = session.get_inputs()[0].name, session.get_inputs()[0].shape[1:]


async def app(scope, receive, send):  # noqa: ARG001 - ASGI's signature
    """Respond to every request with predictions."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    values = np.frombuffer(Parser().parse(body)["instances"].as_buffer(of_type="u"), np.uint64)
    (probabilities,) = session.run(None, {name: values.astype(np.uint8).reshape(-1, *shape)})
    response = json.dumps({"predictions": probabilities.tolist()}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(response)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": response})


if __name__ == "__main__":
    uvicorn.run(
        app, port=PORT, loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="warning"
    )
