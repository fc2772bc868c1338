"""Models from the user's code, and its errors."""

import numpy as np
import pytest

from modelyard.components.errors import TooLargeError, TrainError
from modelyard.components.train import model as networks
from modelyard.components.train import user_code
from modelyard.components.train.data import Features
from modelyard.components.train.settings import Model

NETWORK = """
    def build(input_shape, classes, units=4):
        return keras.Sequential(
            [layers.Flatten(), layers.Dense(units), layers.Dense(classes, activation="softmax")]
        )
"""
HEAD = """
    def build(input_shape, classes):
        x = keras.Input(input_shape)
        return keras.Model(x, {})
"""


def network(body: str, head: str = "layers.Dense(classes, activation='softmax')(layers.Flatten()(x))") -> str:
    return body + HEAD.format(head)


def test_user_code_may_import_modules_and_define_layers(train_env) -> None:
    """The code is a package that imports a module, with a custom layer, arguments and logits."""
    folder = train_env.code(
        helper="""
    @keras.saving.register_keras_serializable("scaled")
    class Scale(layers.Layer):
        def __init__(self, factor, **kwargs):
            super().__init__(**kwargs)
            self.factor = factor

        def call(self, x):
            return x * self.factor

        def get_config(self):
            return {**super().get_config(), "factor": self.factor}
"""
    )
    (folder / "nets").mkdir()
    (folder / "nets" / "__init__.py").write_text("")
    (folder / "nets" / "small.py").write_text(
        "import keras\nimport helper\nfrom keras import layers\n\n"
        "def build(input_shape, classes, units=4):\n"
        "    return keras.Sequential([layers.Flatten(), helper.Scale(2.0), layers.Dense(units),"
        " layers.Dense(classes)])\n"
    )
    history = train_env.train_user_code("nets.small:build", {"units": 6}, model={"logits": True})
    assert history.parameters == 64 * 6 + 6 + 6 * 3 + 3
    assert (train_env.model / "model.onnx").is_file()
    images, _ = train_env.images(5)
    assert train_env.load_model()(images).numpy().sum(axis=1) == pytest.approx(1)


def test_changed_code_is_not_executed(train_env) -> None:
    train_env.code(changed="raise SystemExit('executed')")
    with pytest.raises(TrainError, match=r"fingerprint is \w{12}, but was abababababab"):
        train_env.train_user_code("changed:build", code_sha256="ab" * 32)


def test_a_missing_code_folder_is_an_error(train_env) -> None:
    with pytest.raises(TrainError, match=r"model.code is .*networks, which is not a folder"):
        train_env.train_user_code("absent:build", code_sha256="ab" * 32)


@pytest.mark.parametrize(
    ("build", "code", "message"),
    [
        ("typo:bild", NETWORK, r"typo.py has no function bild\. Choose one of build\.$"),
        ("constant:build", "build = 3", r"has no function build. Define it\."),
        (
            "missing_module:build",
            None,
            r"The import of missing_module .* failed: ModuleNotFoundError: .*'missing_module'. Correct",
        ),
        ("json:dumps", NETWORK, r"json is the module .*json/__init__.py, outside .*Rename"),
        ("broken:build", "x = 1 +", r"The import of broken .* failed at .*broken.py:4: SyntaxError"),
        (
            "failing_import:build",
            "import no_such_module",
            r"failed at .*failing_import.py:4: .*'no_such_module'. Correct that line",
        ),
        ("exits:build", "raise SystemExit(0)", r"failed at .*exits.py:4: SystemExit: 0"),
        (
            "extra_argument:build",
            "def build(input_shape, classes, depth): ...",
            r"called with input_shape, classes, but its signature is \(.*, depth\): missing .*'depth'",
        ),
        (
            "raises:build",
            "def build(input_shape, classes):\n        raise ValueError('seven\\nlines')",
            r"model.build raises:build failed at .*raises.py:5: ValueError: seven lines. Correct that line",
        ),
        (
            "returns_number:build",
            "def build(input_shape, classes):\n        return 7",
            r"int. Return a keras.Model",
        ),
        (
            "units:build",
            network("", "layers.Dense(classes + 1, activation='softmax')(layers.Flatten()(x))"),
            r"is \(None, 4\), but must be \(None, 3\).* 3 classes",
        ),
        ("two_outputs:build", network("", "[x, x]"), r"is list, but must be \(None, 3\)"),
        (
            "float16:build",
            network("", "layers.Dense(classes, activation='softmax', dtype='float16')(layers.Flatten()(x))"),
            r'is float16, but must be float32. .*dtype="float32"',
        ),
        (
            "logits:build",
            network("", "layers.Dense(classes)(layers.Flatten()(x))"),
            r"is not probabilities: .*or set model.logits: true",
        ),
        (
            "shapes:build",
            network("", "layers.Dense(classes)(layers.Reshape((7,))(x))"),
            r"model.build shapes:build failed at .*shapes.py:7: ValueError",
        ),
        (
            "compiled:build",
            """
    def build(input_shape, classes):
        x = keras.Input(input_shape)
        model = keras.Model(x, layers.Dense(classes, activation="softmax")(layers.Flatten()(x)))
        model.compile("sgd", "mse")
        return model
""",
            r"was compiled with SGD and the loss mse, which would not be used\. Remove compile\(\)",
        ),
        (
            "custom_step:build",
            """
    class CustomStep(keras.Model):
        def train_step(self, data):
            return {"loss": 0.0}

    def build(input_shape, classes):
        x = keras.Input(input_shape)
        return CustomStep(x, layers.Dense(classes, activation="softmax")(layers.Flatten()(x)))
""",
            r"overrides train_step, which would not be used",
        ),
        (
            "lambda_layer:build",
            network(
                "", "layers.Dense(classes, activation='softmax')(layers.Lambda(lambda v: v[:, 0, :, 0])(x))"
            ),
            r"model.keras cannot be loaded: .*ambda.*do not use Lambda",
        ),
        (
            "no_config:build",
            network(
                """
    class NoConfig(layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def call(self, x):
            return self.function(x)
""",
                "layers.Dense(classes, activation='softmax')(layers.Flatten()(NoConfig(lambda v: v)(x)))",
            ),
            r"cannot be saved as .keras: NotImplementedError: Object NoConfig .*get_config\(\)",
        ),
        (
            "external:build",
            network(
                """
    import numpy as np
    import tensorflow as tf

    @keras.saving.register_keras_serializable("external")
    class External(layers.Layer):
        def call(self, x):
            return tf.ensure_shape(tf.numpy_function(np.abs, [x], tf.float32), x.shape)

        def compute_output_shape(self, shape):
            return shape
""",
                "layers.Dense(classes, activation='softmax')(layers.Flatten()(External()(x)))",
            ),
            r"cannot be exported to ONNX: in the layer external \(External\): .*operation PyFunc\. Replace",
        ),
    ],
)
def test_errors_in_user_code_are_reported_before_training(train_env, capsys, build, code, message) -> None:
    train_env.code(**({build.partition(":")[0]: code} if code else {}))
    with pytest.raises(TrainError, match=message) as error:
        train_env.train_user_code(build)
    assert not set("\n\x1b") & set(str(error.value))
    assert "epoch" not in capsys.readouterr().out
    assert train_env.output_files() == []


def test_an_exported_model_in_user_code_is_not_normalized_twice(train_env) -> None:
    features, images = train_env.features(mean=(30.0,), scale=(90.0,)), train_env.images(60)[0]
    _, network = train_env.fit(epochs=1)
    first = networks.add_export_layer(network, Model(), Features.read(features).schema)
    first.save(path := str(train_env.root / "first.keras"))
    train_env.code(
        start="""
        def build(input_shape, classes, path, layer=None):
            model = keras.saving.load_model(path)
            if layer is None:
                return model
            features = model.get_layer(layer).output
            return keras.Model(model.inputs, layers.Dense(classes, activation="softmax")(features))
        """
    )
    model = {"build": "start:build", "code": str(train_env.root / "networks")}
    no_learning = {"optimizer": "sgd", "optimizer_settings": {"learning_rate": 1e-9}, "epochs": 1}
    _, network = train_env.fit(model | {"arguments": {"path": path}}, **no_learning)
    np.testing.assert_allclose(network(images), first(images), atol=1e-5)
    part = {"arguments": {"path": path, "layer": "dense_1"}}
    _, network = train_env.fit(model | part, **no_learning)
    assert user_code.has_layer(network, user_code.RAW_LAYER)


def test_an_exception_during_training_is_reported_with_file_and_line(train_env) -> None:
    train_env.code(
        failing=network(
            """
    @keras.saving.register_keras_serializable("failing")
    class Failing(layers.Layer):
        def call(self, x, training=False):
            if training:
                raise KeyError("missing")
            return x
""",
            "layers.Dense(classes, activation='softmax')(layers.Flatten()(Failing()(x)))",
        )
    )
    with pytest.raises(
        TrainError, match=r"Training failed at .*failing.py:9: KeyError: .*missing .*Correct that line"
    ):
        train_env.train_user_code("failing:build")
    assert train_env.output_files() == []


def test_out_of_memory_in_user_code_is_too_large_error(tmp_path) -> None:
    with (
        pytest.raises(
            TooLargeError, match=r"Tracing ran out of memory: MemoryError: .*Lower the layer sizes"
        ),
        user_code.translate_errors(tmp_path, "Tracing"),
    ):
        raise MemoryError("Unable to allocate 4 TiB")
