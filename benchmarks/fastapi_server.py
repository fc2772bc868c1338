"""A typical model server: FastAPI, a pydantic model of nested lists, ONNX Runtime.

python benchmarks/fastapi_server.py MODEL.onnx PORT
"""

import sys

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

MODEL, PORT = sys.argv[1], int(sys.argv[2])

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
app = FastAPI()


class Request(BaseModel):
    """A batch of images."""

    instances: list[list[list[list[int]]]]


class Response(BaseModel):
    """A probability for each class and image."""

    predictions: list[list[float]]


@app.post("/v1/models/{model}:predict")
def predict(model: str, request: Request) -> Response:  # noqa: ARG001 - part of the path
    """Return the model's predictions."""
    (probabilities,) = session.run(None, {name: np.asarray(request.instances, np.uint8)})
    return Response(predictions=probabilities.tolist())


if __name__ == "__main__":
    uvicorn.run(app, port=PORT, access_log=False, log_level="warning")
