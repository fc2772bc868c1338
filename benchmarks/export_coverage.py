"""Export all models of keras.applications and all layers of keras.layers to ONNX: `make results`.

The script compares the predictions of Keras and ONNX Runtime for the same random examples, with random
weights. It writes each result to docs/results.md immediately, so it may be interrupted. Each model runs in a
separate process, whose peak memory is measured.

The exit code is 1 after an unexpected result: an export fails that is not in UNSUPPORTED, an export of
UNSUPPORTED succeeds, or a difference is above TOLERANCE for a model that is not in LARGE_DIFFERENCES.
"""

import argparse
import inspect
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
DOCUMENT = Path(__file__).parents[1] / "docs" / "results.md"
TOLERANCE = 1e-4  # of the largest output; absolute if all outputs are below 1
BATCHES = (1, 3)
SIZES = ("smallest", "default")
CLASSES = 10
MORE_MEMORY = {"ConvNeXtXLarge", "NASNetLarge", "EfficientNetB7", "ConvNeXtLarge", "EfficientNetV2L"}
LARGE_DIFFERENCES = {"EfficientNetV2B1", "EfficientNetV2L", "EfficientNetV2M", "EfficientNetV2S"}
"""Models that amplify rounding errors, with random statistics."""

NOT_LAYERS = {  # public classes without an example
    "FlaxLayer": "needs Flax",
    "GRUCell": "part of RNN",
    "InputLayer": "in every model",
    "InputSpec": "not a layer",
    "JaxLayer": "needs JAX",
    "LSTMCell": "part of RNN",
    "Layer": "base class",
    "MaxNumBoundingBoxes": "takes bounding boxes",
    "SimpleRNNCell": "part of RNN",
    "StackedRNNCells": "part of RNN",
    "StringLookup": "takes text",
    "TFSMLayer": "needs a SavedModel",
    "TextVectorization": "takes text",
    "TorchModuleWrapper": "needs PyTorch",
    "Wrapper": "base class",
}
UNSUPPORTED = {
    "HashedCrossing",
    "Hashing",
    "IntegerLookup",
    "Equalization",
}  # Keras cannot build Equalization

# A line has the dtype (default: float32) and shape of an example, and a layer or a function of a tensor.
LAYERS = """
4             Activation("celu")
4             Activation("elu")
4             Activation("exponential")
4             Activation("gelu")
4             Activation("glu")
4             Activation("hard_shrink")
4             Activation("hard_sigmoid")
4             Activation("hard_silu")
4             Activation("hard_tanh")
4             Activation("leaky_relu")
4             Activation("linear")
4             Activation("log_sigmoid")
4             Activation("log_softmax")
4             Activation("mish")
4             Activation("relu6")
4             Activation("selu")
4             Activation("sigmoid")
4             Activation("silu")
4             Activation("soft_shrink")
4             Activation("softplus")
4             Activation("softsign")
4             Activation("sparse_plus")
4             Activation("sparse_sigmoid")
4             Activation("sparsemax")
4             Activation("squareplus")
4             Activation("tanh")
4             Activation("tanh_shrink")
4             ActivityRegularization(l2=0.1)
8x5           AdaptiveAveragePooling1D(3)
8x8x3         AdaptiveAveragePooling2D((3, 5))
6x6x6x2       AdaptiveAveragePooling3D((2, 3, 4))
8x5           AdaptiveMaxPooling1D(3)
8x8x3         AdaptiveMaxPooling2D((3, 5))
6x6x6x2       AdaptiveMaxPooling3D((2, 3, 4))
4             lambda x: Add()([x, 2 * x])
5x4           lambda x: AdditiveAttention()([x, 2 * x])
4             AlphaDropout(0.5)
5x4           lambda x: Attention(use_scale=True)([x, 2 * x])
5x4           lambda x: Attention(score_mode="concat")([x, 2 * x])
5x4           lambda x: Attention()([x, x], use_causal_mask=True)
8x8x3         AugMix()
8x8x3         AutoContrast()
4             lambda x: Average()([x, 2 * x])
8x3           AveragePooling1D(2)
8x8x3         AveragePooling2D(3, strides=2, padding="same")
8x8x8x2       AveragePooling3D(2)
4             BatchNormalization()
6x6x4         BatchNormalization(axis=1, center=False)
6x6x4         BatchNormalization(scale=False)
5x4           Bidirectional(LSTM(3))
5x4           Bidirectional(GRU(3, return_sequences=True), merge_mode="sum")
int32:1       CategoryEncoding(num_tokens=10, output_mode="one_hot")
int32:4       CategoryEncoding(num_tokens=10)
9x8x3         CenterCrop(4, 5)
4             lambda x: Concatenate()([x, 2 * x])
16x16x3       ContrastLimitedAdaptiveHistogramEqualization(tile_grid_size=(2, 2))
8x4           Conv1D(3, 3, dilation_rate=2)
8x4           Conv1D(4, 3, groups=2, padding="causal")
8x4           Conv1DTranspose(3, 3, strides=2)
8x8x4         Conv2D(3, 3, strides=2, padding="same", activation="relu")
8x8x4         Conv2D(6, (2, 3), groups=2)
8x8x4         Conv2D(6, 3, dilation_rate=2)
8x8x4         Conv2DTranspose(3, 3, strides=2, padding="same")
8x8x4         Conv2DTranspose(3, 3, strides=2, output_padding=1)
6x6x6x4       Conv3D(3, 2, strides=2)
6x6x6x4       Conv3D(4, 2, groups=2)
6x6x6x4       Conv3DTranspose(3, 2, strides=2)
3x8x2         ConvLSTM1D(3, 3)
3x6x6x2       ConvLSTM2D(3, 3, return_sequences=True)
2x4x4x4x2     ConvLSTM3D(2, 2)
8x3           Cropping1D(2)
8x8x3         Cropping2D(((1, 2), (0, 3)))
6x6x6x2       Cropping3D(1)
8x8x3         lambda x: CutMix()({"images": x, "labels": keras.ops.zeros((1, 2))})["images"]
4             Dense(3, activation="gelu")
5x4           Dense(3, use_bias=False)
8x4           DepthwiseConv1D(3, depth_multiplier=2)
8x8x4         DepthwiseConv2D(3, strides=2, padding="same")
8x8x4         DepthwiseConv2D(3, dilation_rate=2, depth_multiplier=2)
4             Discretization(bin_boundaries=[-1.0, 0.0, 1.0])
4             Discretization(bin_boundaries=[-1.0, 0.0, 1.0], output_mode="multi_hot")
5x4           lambda x: Dot(axes=2, normalize=True)([x, 2 * x])
4             Dropout(0.5)
4             ELU(alpha=0.5)
5x4           EinsumDense("abc,cd->abd", output_shape=(None, 3), bias_axes="d")
int32:5       Embedding(10, 3, mask_zero=True)
8x8x3         Equalization()
5x4           Flatten()
5x4           GRU(3)
5x4           GRU(3, reset_after=False, go_backwards=True)
4             GaussianDropout(0.5)
4             GaussianNoise(0.5)
5x4           GlobalAveragePooling1D()
8x8x3         GlobalAveragePooling2D(keepdims=True)
4x4x4x2       GlobalAveragePooling3D()
5x4           GlobalMaxPooling1D()
8x8x3         GlobalMaxPooling2D()
4x4x4x2       GlobalMaxPooling3D()
5x8           lambda x: GroupQueryAttention(head_dim=4, num_query_heads=4, num_key_value_heads=2)(x, x)
6x6x4         GroupNormalization(groups=2)
int32:1       lambda x: HashedCrossing(5)((x, x))
int32:1       Hashing(5)
4             Identity()
int32:4       IntegerLookup(vocabulary=[1, 2, 5])
5x4           LSTM(3)
5x4           LSTM(3, return_sequences=True, dropout=0.2, recurrent_dropout=0.2)
5x4           LSTM(3, unroll=True)
5x4           lambda x: LSTM(3, return_state=True)(x)[2]
5x4           lambda x: LSTM(3)(Masking()(x))
4             Lambda(lambda x: x * 2)
6x6x4         LayerNormalization()
6x6x4         LayerNormalization(axis=[1, 2], center=False)
4             LeakyReLU(0.2)
5x4           Masking()
8x3           MaxPooling1D(2)
8x8x3         MaxPooling2D(3, strides=2, padding="same")
3x8x8         MaxPooling2D(2, data_format="channels_first")
8x8x8x2       MaxPooling3D(2)
4             lambda x: Maximum()([x, 0 * x])
128           MelSpectrogram(fft_length=64, sequence_stride=32, num_mel_bins=8)
4             lambda x: Minimum()([x, 0 * x])
8x8x3         lambda x: MixUp()({"images": x, "labels": keras.ops.zeros((1, 2))})["images"]
5x8           lambda x: MultiHeadAttention(2, 4)(x, x)
5x8           lambda x: MultiHeadAttention(2, 4, value_dim=3, use_bias=False)(x, x, use_causal_mask=True)
4             lambda x: Multiply()([x, 2 * x])
4             Normalization(mean=1.0, variance=4.0)
6x6x2         Normalization(mean=[1.0, 2.0], variance=[4.0, 9.0], invert=True)
6x6x4         PReLU(shared_axes=[1, 2])
5x4           Permute((2, 1))
8x8x3         Pipeline([Rescaling(0.5), RandomFlip()])
6x6x4         RMSNormalization()
5x4           RNN([LSTMCell(3), GRUCell(2)])
5x4           RNN(SimpleRNNCell(3), return_sequences=True)
8x8x3         RandAugment()
8x8x3         RandomBrightness(0.2)
8x8x3         RandomColorDegeneration(0.2)
8x8x3         RandomColorJitter(brightness_factor=0.2)
8x8x3         RandomContrast(0.2)
9x8x3         RandomCrop(4, 5)
8x8x3         RandomElasticTransform()
8x8x3         RandomErasing()
8x8x3         RandomFlip()
8x8x3         RandomGaussianBlur()
8x8x3         RandomGrayscale()
8x8x3         RandomHue(0.2)
8x8x3         RandomInvert()
8x8x3         RandomPerspective()
8x8x3         RandomPosterization(4)
8x8x3         RandomRotation(0.2)
8x8x3         RandomSaturation(0.2)
8x8x3         RandomSharpness(0.2)
8x8x3         RandomShear(0.2, 0.2)
8x8x3         RandomTranslation(0.2, 0.2)
8x8x3         RandomZoom(0.2)
4             ReLU(max_value=1, negative_slope=0.1, threshold=0.2)
4             RepeatVector(3)
8x8x3         Rescaling(0.5, offset=1)
12            Reshape((3, 4))
41x7x1        Resizing(64, 31)
41x7x1        Resizing(64, 31, interpolation="nearest")
8x6x1         Resizing(5, 9, interpolation="bicubic")
8x6x1         Resizing(5, 9, interpolation="lanczos3")
8x6x1         Resizing(5, 9, interpolation="lanczos5", antialias=True)
8x6x1         Resizing(5, 9, crop_to_aspect_ratio=True)
8x6x1         Resizing(5, 9, pad_to_aspect_ratio=True)
int32:5       ReversibleEmbedding(10, 3)
128x1         STFTSpectrogram(frame_length=32)
128x1         STFTSpectrogram(mode="angle", frame_length=32)
8x4           SeparableConv1D(3, 3)
8x8x4         SeparableConv2D(3, 3, strides=2, depth_multiplier=2)
5x4           SimpleRNN(3)
5x4           Softmax(axis=1)
8x8x3         Solarization(0.1, 0.5)
8x4           SpatialDropout1D(0.5)
8x8x4         SpatialDropout2D(0.5)
4x4x4x2       SpatialDropout3D(0.5)
8x8x4         SpectralNormalization(Conv2D(3, 3))
4             lambda x: Subtract()([x, 2 * x])
3x8x8x2       TimeDistributed(Conv2D(3, 3))
4             UnitNormalization()
5x4           UpSampling1D(3)
7x41x2        UpSampling2D((3, 5))
7x41x2        UpSampling2D(2, interpolation="bilinear")
8x6x1         UpSampling2D(2, interpolation="bicubic")
3x4x5x2       UpSampling3D(2)
5x4           ZeroPadding1D(2)
8x8x3         ZeroPadding2D(((1, 2), (0, 3)))
3x4x5x2       ZeroPadding3D(1)
"""


@dataclass(frozen=True)
class Result:
    """The result of an export.

    Attributes:
        name: the model, or the expression of the layer.
        input: the shape of an example.
        difference: largest absolute difference between the predictions of Keras and ONNX Runtime.
        largest: largest absolute value of the predictions of Keras.
        seconds: CPU time of the conversion.
        megabytes: peak memory of the process in MiB.
        reason: the error if the export failed.
    """

    name: str
    input: str
    difference: float = 0.0
    largest: float = 0.0
    seconds: float = 0.0
    megabytes: float = 0.0
    reason: str = ""

    def predictions_match(self) -> bool:
        """Return whether the model was exported and the difference is within the tolerance."""
        return not self.reason and self.difference <= TOLERANCE * max(1.0, self.largest)

    def format_row(self, columns: int) -> str:
        """Return the row of the table, with a number of columns."""
        if self.reason:
            cells = [self.name, self.input, self.reason.replace("|", "\\|"), *[""] * (columns - 3)]
        else:
            bold = "" if self.predictions_match() else "**"
            memory = f"{self.megabytes:,.0f} MiB"
            cells = [self.name, self.input, f"{bold}{self.difference:.0e}{bold}", f"{self.largest:.2g}"]
            cells = [*cells, f"{self.seconds:.1f}", memory][:columns]
        return f"| {' | '.join(cells)} |"


def list_models() -> list[str]:
    """Return the names of the models in keras.applications; those that need much memory are last."""
    from keras import applications

    names = [name for name, value in vars(applications).items() if inspect.isfunction(value)]
    return sorted(names, key=lambda name: (name in MORE_MEMORY, name))


def list_layers() -> Iterator[tuple[str, str, str]]:
    """Yield class, shape of an example and expression of each layer."""
    for line in LAYERS.strip().splitlines():
        shape, expression = line.split(maxsplit=1)
        yield expression.removeprefix("lambda x: ").partition("(")[0], shape, expression


def check_complete() -> None:
    """Raise unless each public class of keras.layers has an example or is in NOT_LAYERS."""
    import keras

    classes = {value.__name__ for value in vars(keras.layers).values() if inspect.isclass(value)}
    tested = {name for name in classes if f"{name}(" in LAYERS}
    known = tested | NOT_LAYERS.keys() | {"GroupedQueryAttention"}  # its public name is GroupQueryAttention
    assert classes <= known, f"LAYERS has no example of {', '.join(sorted(classes - known))}"


def run_model(name: str, size: str) -> Result:
    """Export a model of keras.applications with an input size of SIZES."""
    from keras import applications

    function = getattr(applications, name)
    arguments = {"weights": None, "classes": CLASSES, "classifier_activation": None}
    if size == "default":
        model = function(**arguments)
        if None in model.inputs[0].shape[1:]:  # MobileNetV3 takes any size
            model = function(input_shape=(224, 224, 3), **arguments)
    else:
        for side in range(1, 225):
            try:
                model = function(input_shape=(side, side, 3), **arguments)
                break
            except ValueError as error:
                if side == 224:
                    raise error
    return export_and_compare(model, name, "x".join(map(str, model.inputs[0].shape[1:])), BATCHES[:1])


def run_layer(shape: str, expression: str) -> Result:
    """Export a layer, or a function of layers, for an example of a shape."""
    import keras

    names = {**vars(keras.layers), "keras": keras}
    kind, _, sides = shape.rpartition(":")
    try:
        examples = keras.Input(tuple(map(int, sides.split("x"))), dtype=kind or "float32")
        model = keras.Model(examples, eval(expression, names)(examples))  # noqa: S307
    except Exception as error:
        return Result(f"`{expression}`", shape, reason=f"Keras: {str(error).splitlines()[0]}")
    return export_and_compare(model, f"`{expression}`", shape, BATCHES)


def export_and_compare(model: Any, name: str, shape: str, batches: tuple[int, ...]) -> Result:
    """Export a model with random weights and compare the predictions of Keras and ONNX Runtime."""
    import numpy as np
    import onnxruntime

    from modelyard.components.train import onnx_export

    random = np.random.default_rng(0)
    randomize(model, random)
    (tensor,) = model.inputs
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        start = time.process_time()  # unlike wall time, not affected by other processes
        try:
            onnx_export.convert(model, "input", "output", path)
            seconds = time.process_time() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            differences, largest = [], []
            for count in batches:
                batch = make_examples(model, tensor, count, random)
                expected = np.asarray(model(batch, training=False), np.float64)
                actual = session.run(["output"], {"input": batch})[0]
                assert actual.shape == expected.shape, f"{actual.shape} instead of {expected.shape}"
                differences.append(float(np.abs(actual - expected).max()))
                largest.append(float(np.abs(expected).max()))
        except Exception as error:
            return Result(name, shape, reason=" ".join(str(error).split()))
    return Result(name, shape, max(differences), max(largest), seconds, peak)


def randomize(model: Any, random: Any) -> None:
    """Randomize the weights that are constants in an untrained model; kernels are already random."""
    for weight in model.weights:
        kind = weight.path.rpartition("/")[2]
        if kind in ("gamma", "moving_variance", "scale"):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        elif kind in ("beta", "bias", "moving_mean", "alpha"):
            weight.assign(random.normal(0, 0.1, weight.shape))


def make_examples(model: Any, tensor: Any, count: int, random: Any) -> Any:
    """Return images of 0 to 255 for models that rescale images, otherwise normally distributed values."""
    shape = (count, *tensor.shape[1:])
    if tensor.dtype == "int32":
        return random.integers(0, 10, shape).astype("int32")
    pixels = any("preprocessing" in type(layer).__module__ for layer in model.layers) and len(shape) == 4
    return (random.uniform(0, 255, shape) if pixels else random.normal(size=shape)).astype("float32")


def run_in_process(name: str, size: str) -> Result:
    """Return the result of `run_model` in a separate process; if it is killed, the result has the reason."""
    process = subprocess.run(
        [sys.executable, __file__, name, "--size", size, "--json"], capture_output=True, text=True
    )
    for line in process.stdout.splitlines():
        if line.startswith("{"):
            return Result(**json.loads(line))
    last_line = (process.stderr.strip().splitlines() or [""])[-1]
    return Result(name, size, reason=f"the process ended with exit code {process.returncode}: {last_line}")


def update_table(document: Path, table: str, result: Result, columns: int) -> None:
    """Add or replace the row of a result in a page, between the two markers of the table."""
    text = document.read_text()
    start, end = f"<!-- {table} -->\n", f"<!-- end of {table} -->"
    before, rest = text.split(start)
    body, after = rest.split(end)
    header, separator, *old_rows = body.splitlines()
    rows = {tuple(row.split(" | ")[:2]): row for row in [*old_rows, result.format_row(columns)]}
    ordered = sorted(rows.values(), key=lambda row: (row.split(" | ")[0].lower(), row.split(" | ")[1]))
    document.write_text(before + start + "\n".join([header, separator, *ordered, end]) + after)


def main() -> None:
    """Export the models and layers on the command line."""
    parser = argparse.ArgumentParser(description="Export the models and layers of Keras to ONNX and compare.")
    parser.add_argument(
        "names", nargs="*", help='names of models and layers, "models" or "layers"; default: all'
    )
    parser.add_argument(
        "--size", action="append", choices=SIZES, help="input size of the models; default: both"
    )
    parser.add_argument("--output", type=Path, default=DOCUMENT, help="the page whose tables are updated")
    parser.add_argument(
        "--json", action="store_true", help="export one model in this process and print the result as JSON"
    )
    arguments = parser.parse_args()
    if arguments.json:
        print(json.dumps(asdict(run_model(arguments.names[0], arguments.size[0]))))
        return
    if not arguments.output.exists():
        arguments.output.write_text(DOCUMENT.read_text())
    names, unexpected = set(arguments.names), []
    check_complete()
    for name, size in itertools.product(list_models(), arguments.size or SIZES):
        if not names or names & {name, "models"}:
            result = run_in_process(name, size)
            update_table(arguments.output, "models", result, 6)
            print(result.format_row(6), flush=True)
            if result.reason or not (result.predictions_match() or name in LARGE_DIFFERENCES):
                unexpected.append(result)
    for layer, shape, expression in list_layers():
        if not names or names & {layer, "layers"}:
            result = run_layer(shape, expression)
            update_table(arguments.output, "layers", result, 5)
            print(result.format_row(5), flush=True)
            if result.predictions_match() is (layer in UNSUPPORTED):
                unexpected.append(result)
    if unexpected:
        sys.exit("unexpected: " + ", ".join(f"{result.name} ({result.input})" for result in unexpected))


if __name__ == "__main__":
    main()
