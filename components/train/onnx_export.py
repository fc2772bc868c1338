"""Converts a Keras model to ONNX, with a frozen TensorFlow graph and tf2onnx.

    convert(keras_model, "input", "probabilities", Path("model.onnx"))

Keras' own `export(format="onnx")` is not used: its graphs have constants as additional inputs, it does not
inline the functions of grouped convolutions, and it takes gigabytes for large models. The handlers at the end
of this module add operations to tf2onnx, such as the error function of exact gelu. Undocumented functions of
tf2onnx are used, so tf2onnx and TensorFlow are pinned, and each handler has a test.
"""

import logging
import re
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto
from tf2onnx import optimizer, tf_loader, tfonnx
from tf2onnx.constants import ONNX_DOMAIN
from tf2onnx.graph import Node
from tf2onnx.handler import tf_op
from tf2onnx.onnx_opset import nn, signal

from modelyard.components.errors import TrainError, describe
from modelyard.components.train.backend import tf

OPSET = 18  # maximum of tf2onnx 1.17
NO_INLINE_ATTRIBUTES = ("_XlaMustCompile", "_noinline")
RESIZE_ATTRIBUTES = {
    "ResizeBicubic": ("align_corners", "half_pixel_centers"),
    "ScaleAndTranslate": ("kernel_type", "antialias"),
}
SMALL_WEIGHT = 2**16  # bytes
SIGN_BIT = int(np.iinfo(np.int32).min)


def convert(model: Any, input_name: str, output_name: str, path: Path) -> None:
    """Write a `keras.Model` in float32 as ONNX, for inference, with a variable batch size.

    Args:
        model: has one input and one output.
        input_name: of the graph.
        output_name: of the graph.
        path: of the ONNX file.

    Raises:
        TrainError: an operation cannot be converted; the message names the layer.
    """
    node_filter = _FailedNodes()
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    logger = logging.getLogger("tf2onnx.tfonnx")
    logger.setLevel(logging.ERROR)
    logger.addFilter(node_filter)
    try:
        proto = _build_proto(model, input_name, output_name)
    except Exception as error:
        layers = _describe_layers(model, node_filter.nodes)
        raise TrainError(
            f"The model cannot be exported to ONNX: {layers}{describe(error)} Replace "
            f"{'that layer' if layers else 'the layer that uses this operation'} with other Keras layers."
        ) from error
    finally:
        logger.removeFilter(node_filter)
    nodes = ((node, onnx.defs.has(node.op_type, node.domain)) for node in _iterate_nodes(proto.graph))
    if unknown := {node.name: node.op_type for node, is_known in nodes if not is_known}:
        layers = _describe_layers(model, list(unknown))
        raise TrainError(
            f"The model cannot be exported to ONNX: {layers}tf2onnx cannot convert the operation "
            f"{' and '.join(sorted(set(unknown.values())))}. Replace that layer with other Keras layers."
        )
    onnx.save(proto, path)


def _build_proto(model: Any, input_name: str, output_name: str) -> Any:
    (examples,) = model.inputs
    trainable, others = list(model.trainable_variables), list(model.non_trainable_variables)

    def predict(examples: Any, weights: Any) -> Any:
        values = weights[: len(trainable)], weights[len(trainable) :]
        return model.stateless_call(*values, examples, training=False)[0]

    # Weights are arguments, so that TensorFlow's passes do not copy them.
    spec = tf.TensorSpec((None, *examples.shape[1:]), examples.dtype, name=input_name)
    specs = [tf.TensorSpec(variable.shape, variable.dtype) for variable in (*trainable, *others)]
    concrete = tf.function(predict, input_signature=[spec, specs]).get_concrete_function()
    placeholders = [tensor.op.name for tensor in concrete.inputs[1 : 1 + len(specs)]]
    weights = _Weights(zip(placeholders, map(np.asarray, (*trainable, *others)), strict=True))
    # Only the first argument is an input; weights and captured tensors become constants.
    inputs, outputs = [concrete.inputs[0].name], [concrete.outputs[0].name]
    frozen_graph = tf_loader.convert_variables_to_constants_large_model(concrete)
    frozen_graph = tf_loader.fix_freezing_errors_part2(tf_loader.fix_freezing_errors(frozen_graph))
    _allow_inlining(frozen_graph)
    weights.fill(frozen_graph, smaller=True)
    with tf.Graph().as_default():
        frozen_graph = tf_loader.tf_optimize(inputs, outputs, frozen_graph)
    weights.fill(frozen_graph, smaller=False)
    with tf.Graph().as_default() as graph, _copy_constants_once():
        tf.import_graph_def(frozen_graph, name="")
        onnx_graph = tfonnx.process_tf_graph(
            graph,
            opset=OPSET,
            input_names=inputs,
            output_names=outputs,
            tensors_to_rename={inputs[0]: input_name, outputs[0]: output_name},
            const_node_values=weights,
        )
        proto = optimizer.optimize_graph(onnx_graph, catch_errors=False).make_model("modelyard")
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return proto


class _Weights(dict[str, Any]):
    """Weights by the names of their placeholders; items are bytes, as tf2onnx expects.

    A large weight is a constant without a value in the graph; tf2onnx reads the value from this dict.
    """

    def __getitem__(self, placeholder: str) -> bytes:
        return bytes(super().__getitem__(placeholder).tobytes())

    def fill(self, graph: Any, *, smaller: bool) -> None:
        """Replace placeholders with constants: those of small weights with values, or those of large ones.

        TensorFlow folds small weights, such as the statistics of a batch normalization.
        """
        for node in graph.node:
            value = self.get(node.name)
            if value is not None and (value.nbytes <= SMALL_WEIGHT) is smaller:
                node.op = "Const"
                node.attr.clear()
                node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
                tensor = node.attr["value"].tensor
                tensor.CopyFrom(tf.make_tensor_proto(value if smaller else value.flat[:0]))
                tensor.tensor_shape.CopyFrom(tf.TensorShape(value.shape).as_proto())


def _allow_inlining(graph: Any) -> None:
    """Allow TensorFlow to inline functions that XLA compiles, such as grouped convolutions of Keras."""
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    for element in (*nodes, *graph.library.function):
        for attribute in NO_INLINE_ATTRIBUTES:
            element.attr.pop(attribute, None)


@contextmanager
def _copy_constants_once() -> Iterator[None]:
    """Prevent each pass of tf2onnx's optimizer from copying all weights into memory that is not freed."""
    original = Node.update_proto

    def update(node: Any, external_tensor_storage: Any = None) -> None:
        if not node.is_const():
            original(node, external_tensor_storage)

    Node.update_proto = update
    try:
        yield
    finally:
        Node.update_proto = original


class _FailedNodes(logging.Filter):
    """Collects the failed nodes from the log of tf2onnx, whose exceptions do not name them; logs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        if record.exc_info and isinstance(record.args, tuple):
            self.nodes.append(str(record.args[0]))
        return False


def _describe_layers(model: Any, nodes: list[str]) -> str:
    """Return `in the layer NAME (CLASS): ` for graph nodes, or an empty string for unknown layers."""
    layers = {layer.name: type(layer).__name__ for layer in model._flatten_layers(include_self=False)}
    names = dict.fromkeys(name for node in nodes if (name := _find_layer_name(node, layers)))
    return f"in the layer {', '.join(f'{name} ({layers[name]})' for name in names)}: " if names else ""


def _find_layer_name(node: str, layers: Container[str]) -> str:
    """Return the innermost layer of a node such as `model_1/dense_3_1/MatMul`; it may have suffixes."""
    for part in reversed(node.split("/")[:-1]):
        for name in (part, re.sub(r"_\d+$", "", part)):
            if name in layers:
                return name
    return ""


def _iterate_nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from _iterate_nodes(attribute.g)


# Handlers of operations that tf2onnx lacks or converts incorrectly. A handler replaces a node of TensorFlow's
# graph with ONNX nodes.


def _handles(*operations: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as the handler of operations, instead of tf2onnx's own."""

    def register(handler: Callable[..., None]) -> Callable[..., None]:
        tf_op.register_handler(handler, OPSET, operations, ONNX_DOMAIN, {})
        return handler

    return register


def _replace_node(graph: Any, node: Any, output: str) -> None:
    """Replace a node with the nodes that compute `output`."""
    shapes, dtypes = node.output_shapes, node.output_dtypes
    graph.remove_node(node.name)
    graph.make_node("Identity", [output], outputs=node.output, name=node.name, shapes=shapes, dtypes=dtypes)


def _add_constant(graph: Any, value: Any) -> str:
    name: str = graph.make_const(tfonnx.utils.make_name("constant"), np.asarray(value)).output[0]
    return name


def _add_node(graph: Any, operation: str, *inputs: str, **attributes: Any) -> str:
    name: str = graph.make_node(operation, list(inputs), attr=attributes).output[0]
    return name


def _one_like(graph: Any, tensor: str) -> str:
    return _add_constant(graph, np.ones((), tfonnx.utils.map_onnx_to_numpy_type(graph.get_dtype(tensor))))


@_handles("Erfc")
def _convert_erfc(graph: Any, node: Any, **_: Any) -> None:
    """1 - Erf(x); used by exact gelu."""
    (x,) = node.input
    _replace_node(graph, node, _add_node(graph, "Sub", _one_like(graph, x), _add_node(graph, "Erf", x)))


@_handles("Expm1")
def _convert_expm1(graph: Any, node: Any, **_: Any) -> None:
    """Exp(x) - 1; used by celu."""
    (x,) = node.input
    _replace_node(graph, node, _add_node(graph, "Sub", _add_node(graph, "Exp", x), _one_like(graph, x)))


@_handles("Log1p")
def _convert_log1p(graph: Any, node: Any, **_: Any) -> None:
    """Log(x + 1); used by logaddexp."""
    (x,) = node.input
    _replace_node(graph, node, _add_node(graph, "Log", _add_node(graph, "Add", x, _one_like(graph, x))))


@_handles("Conv3D")
def _convert_conv3d(graph: Any, node: Any, **kwargs: Any) -> None:
    """Sets the groups of the convolution, which tf2onnx supports in two dimensions only."""
    axis = -1 if node.attr["data_format"].s == b"NDHWC" else 1
    channels, each = graph.get_shape(node.input[0])[axis], graph.get_shape(node.input[1])[-2]
    nn.ConvOp.version_13(graph, node, **kwargs)
    node.set_attr("group", channels // each)


@_handles("Conv2DBackpropInput", "Conv3DBackpropInputV2")
def _convert_transposed_convolution(graph: Any, node: Any, **kwargs: Any) -> None:
    """Sets output_padding, which tf2onnx converts to negative pads."""
    nn.ConvTranspose.version_11(graph, node, **kwargs)
    pads = node.get_attr_value("pads") or [0]
    if min(pads) < 0:
        half = len(pads) // 2
        pairs = list(zip(pads[:half], pads[half:], strict=True))
        positive = [pair if sum(pair) > 0 else (0, 0) for pair in pairs]
        node.set_attr("pads", [pair[end] for end in (0, 1) for pair in positive])
        node.set_attr("output_padding", [max(0, -sum(pair)) for pair in pairs])


@_handles("ResizeBilinear", "ResizeNearestNeighbor")
def _convert_resize(graph: Any, node: Any, **kwargs: Any) -> None:
    """Calls the handler of tf2onnx with a size that is not a constant.

    It converts a constant size to a float factor, and ONNX Runtime rounds size * factor down: the result is
    one pixel too small for 5 % of all sizes.
    """
    size = graph.make_node("Identity", [node.input[1]])
    graph.replace_input(node, node.input[1], size.output[0], 1)
    nn.Resize.version_11(graph, node, **kwargs)


@_handles("ResizeBicubic", "ScaleAndTranslate")
def _convert_resize_by_matrices(graph: Any, node: Any, **_: Any) -> None:
    """Cubic, Lanczos and antialiased resizing, as products with one matrix each for rows and columns."""
    images = node.input[0]
    sides = graph.get_shape(images)[1:3]
    size = node.inputs[1].get_tensor_value(as_list=False)
    attributes = {key: node.get_attr_value(key) for key in RESIZE_ATTRIBUTES[node.type]}
    matrices = [_compute_resize_matrix(node.type, sides[axis], size[axis], attributes) for axis in (0, 1)]
    rows, columns = _add_constant(graph, matrices[0]), _add_constant(graph, matrices[1].T)
    floats = _add_node(graph, "Cast", images, to=TensorProto.FLOAT)
    planes = _add_node(graph, "Transpose", floats, perm=[0, 3, 1, 2])
    planes = _add_node(graph, "MatMul", _add_node(graph, "MatMul", rows, planes), columns)
    _replace_node(graph, node, _add_node(graph, "Transpose", planes, perm=[0, 2, 3, 1]))


def _compute_resize_matrix(kind: str, old: int, new: int, attributes: dict[str, Any]) -> NDArray[np.float32]:
    """Return (new, old), by resizing an image whose channels are the rows of an identity matrix."""
    with tf.__internal__.eager_context.eager_mode():
        images, size = np.eye(old, dtype=np.float32)[None, :, None], np.array([new, 1], np.int32)
        if kind == "ResizeBicubic":
            cubic = {key: bool(value) for key, value in attributes.items()}
            output = tf.raw_ops.ResizeBicubic(images=images, size=size, **cubic)
        else:
            output = tf.raw_ops.ScaleAndTranslate(
                images=images,
                size=size,
                scale=np.array([new / old, 1], np.float32),  # as tf.image.resize does
                translation=np.zeros(2, np.float32),
                kernel_type=attributes["kernel_type"].decode(),
                antialias=bool(attributes["antialias"]),
            )
        matrix: NDArray[np.float32] = np.asarray(output)[0, :, 0]
    return matrix


@_handles("Bucketize")
def _convert_bucketize(graph: Any, node: Any, **_: Any) -> None:
    """Number of boundaries up to a value; used by Discretization and digitize."""
    boundaries = _add_constant(graph, np.asarray(node.get_attr_value("boundaries"), np.float64))
    last = _add_constant(graph, np.array([-1]))
    values = _add_node(graph, "Cast", node.input[0], to=TensorProto.DOUBLE)
    above = _add_node(graph, "Less", _add_node(graph, "Unsqueeze", values, last), boundaries)
    below = _add_node(graph, "Cast", _add_node(graph, "Not", above), to=TensorProto.INT32)
    _replace_node(graph, node, _add_node(graph, "ReduceSum", below, last, keepdims=0))


@_handles("Bitcast")
def _convert_bitcast(graph: Any, node: Any, **_: Any) -> None:
    """The sign bit of a float as an integer; used by argmax, argmin and signbit."""
    (x,) = node.input
    for consumer in graph.find_output_consumers(node.output[0]):
        values = [operand.get_tensor_value() for operand in consumer.inputs if operand.is_const()]
        if consumer.type != "BitwiseAnd" or values != [SIGN_BIT] or graph.get_dtype(x) != TensorProto.FLOAT:
            raise ValueError("tf2onnx cannot convert the operation Bitcast.")
    zero = _add_constant(graph, np.float32(0))
    inverse = _add_node(graph, "Div", _one_like(graph, x), x)  # distinguishes -0.0 from 0.0
    negative = _add_node(
        graph, "Or", _add_node(graph, "Less", x, zero), _add_node(graph, "Less", inverse, zero)
    )
    bits = (_add_constant(graph, np.int32(value)) for value in (SIGN_BIT, 0))
    _replace_node(graph, node, _add_node(graph, "Where", negative, *bits))


@_handles("RFFT")
def _convert_rfft(graph: Any, node: Any, **kwargs: Any) -> None:
    """Real and imaginary parts of an FFT, for spectrograms. tf2onnx supports the magnitude only."""
    parts = graph.find_output_consumers(node.output[0])
    if any(part.type not in ("Real", "Imag") for part in parts):
        signal.RFFTOp.version_13(graph, node, **kwargs)
        return
    last = len(graph.get_shape(node.input[0])) - 1
    length = _add_constant(graph, np.int64(node.inputs[1].get_tensor_value()[0]))
    values = _add_node(graph, "Unsqueeze", node.input[0], _add_constant(graph, np.array([-1])))
    spectrum = _add_node(graph, "DFT", values, length, axis=last, onesided=1)
    for part in parts:
        graph.replace_inputs(part, [spectrum, _add_constant(graph, np.int64(part.type == "Imag"))])
        part.type, part.skip_conversion = "Gather", True
        part.set_attr("axis", last + 1)
    graph.remove_node(node.name)
