import os
from pathlib import Path

import pytest

from modelyard.components.errors import ConfigError
from modelyard.components.preprocess.settings import Preparation
from modelyard.components.source.settings import Source
from modelyard.components.store.settings import Store
from modelyard.pipelines.config import text as config_text
from modelyard.pipelines.config.config import load, load_section

EXAMPLES = Path(__file__).parents[3] / "examples"
DIGITS = "name: x\ndata:\n  kind: digits\n"


@pytest.fixture
def load_text(tmp_path):
    """Return a function that loads a text as the file `folder/x.yaml`."""

    def load_from(text, *overrides, **environ):
        path = tmp_path / "folder" / "x.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return load(path, overrides, environ)

    return load_from


def test_a_path_with_a_kfp_placeholder_is_rejected(error_text):
    for text, key in (("kind: npz\n  source: 'a{{$b.npz'", "data.source"), ("kind: digits", "model.code")):
        message = error_text(f"name: x\ndata:\n  {text}\nmodel:\n  code: 'x{{{{$'\n")
        assert key in message
        assert ", line " in message


@pytest.fixture
def error_text(load_text):
    """Return a function that loads an invalid text and returns the error message."""

    def load_invalid(text, *overrides, **environ):
        with pytest.raises(ConfigError) as error:
            load_text(text, *overrides, **environ)
        return str(error.value)

    return load_invalid


def test_the_default_is_the_digits_example():
    assert load(environ={}) == load(EXAMPLES / "digits.yaml", environ={})
    assert load(environ={}).gate.minimum == {"accuracy": 0.9}


def test_the_cifar10_example_has_the_values_of_the_tutorial():
    config = load(EXAMPLES / "cifar10.yaml", environ={})
    assert config.data.kind == "cifar10"
    assert config.data.source == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert (config.data.normalize, config.data.scale, config.data.validation) == ("scale", 255, 5000)
    assert (config.model.filters, config.model.kernel, config.model.dense) == ((32, 64), 3, (64,))
    assert (config.model.build, config.model.dropout) == (None, 0)
    assert config.training.optimizer == "adam"
    assert (config.training.batch_size, config.training.epochs) == (32, 10)
    assert config.training.early_stopping is None


def test_options_override_variables_and_variables_override_the_file(load_text):
    text = DIGITS + "training: {epochs: 2, batch_size: 2, seed: 2}\n"
    environ = {"MODELYARD_TRAINING__EPOCHS": "3", "MODELYARD_TRAINING__BATCH_SIZE": "3"}
    training = load_text(text, "training.epochs=4", **environ).training
    values = (training.epochs, training.batch_size, training.seed, training.optimizer)
    assert values == (4, 3, 2, "adam")


def test_the_last_of_repeated_options_wins(load_text):
    assert load_text(DIGITS, "training.epochs=4", "training.epochs=5").training.epochs == 5


def test_options_and_variables_are_yaml_and_create_sections(load_text):
    loaded = load_text(
        DIGITS,
        "training.early_stopping.patience=1",
        "training.optimizer_settings.learning_rate=1e-3",
        "model.filters=[16]",
        "gate=null",
        MODELYARD_TRAINING__OPTIMIZER_SETTINGS__BETA_1="0.5",
        MODELYARD_NAME="other",
    )
    assert loaded.training.early_stopping.patience == 1
    assert loaded.training.optimizer_settings == {"learning_rate": 0.001, "beta_1": 0.5}
    assert (loaded.name, loaded.model.filters, loaded.gate) == ("other", (16,), None)


def test_other_variables_are_ignored(load_text):
    assert load_text(DIGITS, MODELYARD_HOME="/x", MODELYARD_LIFELINE="/y", OTHER__X="1").name == "x"


def test_service_links_of_kubernetes_are_ignored(load_text):
    links = {
        "SERVICE_HOST": "10.0.0.7",
        "SERVICE_PORT": "80",
        "SERVICE_PORT_HTTP": "80",
        "PORT": "tcp://x:80",
    }
    links |= {"PORT_80_TCP": "tcp://x:80", "PORT_80_TCP_PROTO": "tcp", "PORT_53_UDP_ADDR": "x"}
    assert (
        load_text(DIGITS, **{f"MODELYARD_STORE_{name}": value for name, value in links.items()}).name == "x"
    )
    for name in ("SERVICE_HOSTS", "PORT", "URL"):
        with pytest.raises(ConfigError, match=f"did you mean MODELYARD_STORE__{name}"):
            load_text(DIGITS, **{f"MODELYARD_STORE_{name}": "80"})


def test_a_variable_with_one_underscore_is_an_error(load_text):
    with pytest.raises(ConfigError, match="did you mean MODELYARD_TRAINING__BATCH_SIZE"):
        load_text(DIGITS, MODELYARD_TRAINING_BATCH_SIZE="8")


def test_paths_are_relative_to_the_file_or_the_working_directory(load_text, tmp_path):
    (tmp_path / "folder" / "code").mkdir(parents=True)
    (tmp_path / "project").mkdir()
    for folder in ("folder/code", "project"):
        (tmp_path / folder / "m.py").touch()
    text = "name: x\ndata: {kind: npz, source: ../a.npz}\nmodel: {build: 'm:f', code: code}\n"
    loaded = load_text(text)
    assert loaded.data.source == str(tmp_path / "a.npz")
    assert loaded.model.code == str(tmp_path / "folder" / "code")
    assert load_text(text, "model.code=project").model.code == str(tmp_path / "project")
    assert load_text(text, "data={kind: npz, source: b}").data.source == str(tmp_path / "b")
    assert load_text(text, MODELYARD_DATA__SOURCE="c").data.source == str(tmp_path / "c")
    assert load_text(text, "data.source=gs://b/x.npz").data.source == "gs://b/x.npz"
    assert load_text(text).store.url == ".modelyard/models"


def test_model_build_is_checked_without_executing_the_module(load_text, error_text, tmp_path):
    (tmp_path / "folder").mkdir()
    module = tmp_path / "folder" / "nets.py"
    text = DIGITS + "model: {build: 'nets:%s', code: .}\n"
    module.write_text(
        "import other.cnn0\nfrom other import cnn1, x as cnn2\nraise SystemExit\nif 1:\n    cnn3 = 4\n"
        "try:\n    class cnn4: ...\nexcept ValueError:\n    pass\nasync def cnn5():\n    inner = 1\n"
    )
    for number in range(1, 6):
        assert load_text(text % f"cnn{number}").model.build == f"nets:cnn{number}"
    for wrong in ("cnnn", "inner", "x"):
        assert f"line 4: model.build is nets:{wrong}, but {module} defines no {wrong}" in error_text(
            text % wrong
        )
    assert "did you mean cnn" in error_text(text % "cnnn")
    assert "defines no cnnn; did you mean" in error_text(text % "f", "model.build=nets:cnnn")
    module.write_text("from other import *\n")
    assert load_text(text % "cnnn")
    module.write_text("def cnn(:\n")
    assert f"{module} is not valid Python" in error_text(text % "cnn")
    module.unlink()
    module.with_suffix("").mkdir()
    (module.with_suffix("") / "__init__.py").write_text("cnn = 1")
    assert "did you mean cnn?" in error_text(text % "cnnn")


def test_source_and_preparation_are_parts_of_data(load_text):
    loaded = load_text("name: x\ndata: {kind: images, source: /p, resize: {height: 4, width: 5}, test: 10}\n")
    assert Source.from_json(loaded.source().to_json()) == loaded.source()
    assert Preparation.from_json(loaded.preparation().to_json()) == loaded.preparation()
    assert (loaded.source().resize.width, loaded.preparation().test) == (5, 10)


def test_a_table_needs_no_model_keys(load_text, error_text):
    diabetes = "name: x\nproblem: regression\ndata: {kind: diabetes}\n"
    assert load_text(diabetes).model.effective_filters((10,)) == ()
    assert "model.filters" in error_text(f"{diabetes}model: {{filters: [4]}}\n")


def test_a_dumped_configuration_loads_to_an_equal_one(load_text):
    loaded = load_text(
        "name: x\ndata: {kind: npz, source: /a, classes: [no, '1e-3', '010', 'true', é]}\ngate: null\n"
        "training: {optimizer_settings: {learning_rate: 1e-7}}\n"
    )
    assert loaded.data.classes == ("no", "1e-3", "010", "true", "é")
    assert load_text(config_text.dump(loaded.model_dump(mode="json"))) == loaded


def test_a_configuration_is_frozen(load_text):
    with pytest.raises(ValueError, match="frozen"):
        load_text(DIGITS).name = "y"


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        ("data: {knd: digits}", ["data.kind is missing", "data.knd is not a key; did you mean data.kind?"]),
        ("training: {epoch: 3}", ["line 4", "training.epoch is not a key; did you mean training.epochs?"]),
        ("rollout: {watch_seconds: 3}", ["did you mean rollout.bake_seconds?"]),
        ("epochs: 3", ["epochs is not a key; did you mean training.epochs?"]),
        ("zzz: 3", ["zzz is not a key; remove it.", "name, problem, data, model, training"]),
        ("training: {epochs: ten}", ['training.epochs is "ten"', "whole number", "default is 10"]),
        ("training: {epochs: 3.5}", ["training.epochs is 3.5", "whole number"]),
        ("training: {epochs: true}", ["training.epochs is true", "whole number"]),
        ("training: {epochs: 0}", ["training.epochs is 0", "at least 1"]),
        ("training: {epochs: '3'}", ['training.epochs is "3"', "whole number"]),
        ("training:", ["training is null", "section with keys"]),
        ("training: {early_stopping: true}", ["training.early_stopping is true", "section with keys"]),
        ("gate: {margin: {accuracy: -1}}", ["gate.margin.accuracy is -1", "at least 0"]),
        ("gate: {margin: {recall: {'3': 1.5}}}", ["gate.margin.recall.3 is 1.5", "at most 1"]),
        ("gate: {margin: {recall: {3: 1.5}}}", ["gate.margin.recall.3 is 1.5", "at most 1"]),
        ("gate: {margin: {recall: {30: 0.5}}}", ["line 4: gate.margin.recall.30: ", "no class '30'", "3"]),
        ("gate: {minimum: {recall: {x: 0.5}}}", ["line 4: gate.minimum.recall.x: ", "no class 'x'", "0, 1"]),
        ("training: {class_weights: {x: 2}}", ["line 4: training.class_weights.x: ", "no class 'x'"]),
        ("gate: {minimum: {accuracy: 90}}", ["gate.minimum.accuracy is 90", "at least 0 and at most 1"]),
        ("gate: {maximum: {log_loss: -1}}", ["gate.maximum.log_loss is -1", "must be at least 0."]),
        ("model: {filters: 32}", ["model.filters is 32", "a list: write [32]"]),
        ("model: {filters: [32, a]}", ['model.filters.1 is "a"', "whole number"]),
        (
            "model: {build: 'a:b', code: ., filters: [8]}",
            ["only the built-in CNN has model.filters", "a:b"],
        ),
        ("data: {kind: cifar10, source: x, channels: 1}", ["data.channels is for images, not for cifar10"]),
        ("model: {filters: [8, 8, 8]}", ["model.filters", "pooling_2", "[8, 8, 8]"]),
        ("model: {filters: [0]}", ["model.filters.0 is 0", "at least 1"]),
        ("model: {build: 'm:f'}", ["model.build and model.code require each other"]),
        ("model: {build: nope, code: .}", ['model.build is "nope"', "module:function"]),
        ("model: {build: 'nets.py:cnn', code: .}", ["model.build is nets.py:cnn", "nets:cnn"]),
        ("model: {build: './a/nets.py:cnn', code: .}", ["model.build is ./a/nets.py:cnn", " a.nets:cnn"]),
        ("model: {build: 'componens:cnn', code: .}", ["model.build is componens:cnn", "has no componens.py"]),
        ("model: {build: 'm:f', code: missing}", ["missing', which is not a local folder", "model.build"]),
        (
            "model: {build: 'm:f', code: 's3://b/code'}",
            ["line 4", "'s3://b/code', which is not a local folder"],
        ),
        (
            f"model: {{build: 'm:f', code: 's3://b/uploads/code/{'0' * 64}.zip'}}",
            ["line 4: model.code", "s3://"],
        ),
        ("data: {kind: npz, source: 's3://b/d.npz'}", ["line 2: data.source", "s3:// is not", "gs://bucket"]),
        ("store: {url: 'az://b/d'}", ["line 4: store.url", "az:// is not supported", "gs://bucket"]),
        ("store: {url: 'https://b/d'}", ["line 4: store.url", "only be read", "gs://bucket"]),
        ("model: {dropout: 1}", ["model.dropout is 1", "less than 1"]),
        ("model: {logits: yes}", ['model.logits is "yes"', "true or false"]),
        ("serving: {port: 70000}", ["serving.port is 70000", "at most 65535"]),
        ("store: {url: 3}", ["store.url is 3", "text"]),
        ("problem: regresion", ["'regresion'", "did you mean regression?"]),
        ("problem: regression", ["data.kind digits", "data.kind to images or npz or diabetes"]),
        ("data: {kind: diabetes}", ["problem is classification", "diabetes are for regression"]),
        ("training: {loss: mae}", ["line 4", "training.loss is mae", "CategoricalCrossentropy"]),
        ("training: {metrics: AUC}", ['training.metrics is "AUC" and must be a list: write [AUC].']),
        ("data: {kind: digits, fail_on: leakage}", ["line 2: data.fail_on", "a list: write [leakage]."]),
        ("model: {dense:}", ["model.dense is null", "a list: write []"]),
        ("training:\n  epochs: 1\n  callbacks: [TensorBoard]", ["line 6", "callbacks.0 is TensorBoard"]),
        (
            "model: {build: 'a:b', code: ., bias_regularizer: L2}",
            ["only the built-in CNN has model.bias_regularizer"],
        ),
        ("training: {early_stopping: {baseline: ''}}", ['.baseline is "" and must be a number.']),
        ("data: {kind: digits, channels: 99999999999999999999}", ["data.channels is 9", "grayscale"]),
        ("training: {early_stopping: {monitor: val_mae}}", ["monitor is val_mae", "val_loss, val_accuracy"]),
        ("gate: {minimum: {acuracy: 0.9}}", ["line 4: gate.minimum.acuracy", "did you mean accuracy?"]),
        ("gate: {margin: {r2: 0.1}}", ["gate.margin.r2", "balanced_accuracy, accuracy, recall"]),
        ("gate: {minimum: {accuracy: {cat: 0.9}}}", ["gate.minimum.accuracy", "one number"]),
        ("gate: {maximum: {accuracy: 0.9}}", ["higher is better", "gate.minimum"]),
        ("gate: {minimum: {accuracy: high}}", ['gate.minimum.accuracy is "high"', "Minimum"]),
        ("name: x", ["line 4", "'name'", "duplicated"]),
    ],
)
def test_an_error_names_the_origin_value_and_remedy(error_text, lines, parts):
    head = DIGITS if not lines.startswith("data:") else "name: x\n"
    message = error_text(f"{head}{lines}\n")
    assert "x.yaml" in message
    assert [part for part in parts if part not in message] == []
    assert "pydantic" not in message


def test_the_diabetes_data_is_a_regression(load_text):
    text = "name: x\nproblem: regression\ndata: {kind: diabetes}\n"
    loaded = load_text(text + "gate: {maximum: {rmse: 60}}\n", "training.loss=huber", "gate.minimum.r2=0.3")
    assert (loaded.source().problem, loaded.gate.maximum, loaded.gate.minimum) == (
        "regression",
        {"rmse": 60},
        {"r2": 0.3},
    )


def test_keys_of_classification_are_errors_for_regression(error_text):
    text = "name: x\nproblem: regression\ndata: {kind: npz, source: x.npz}\n"
    assert "data.classes is for problem: classification" in error_text(text, "data.classes=[a, b]")
    assert "model.logits does not apply to problem: regression" in error_text(text, "model.logits=true")
    assert "class_weights does not apply to problem: regression" in error_text(
        text, "training.class_weights=balanced"
    )


@pytest.mark.parametrize("key", ["validation", "test"])
@pytest.mark.parametrize("value", ["-1", "0", "0.0", "1.0", "1.5", "-0.1"])
def test_an_invalid_split_size_is_an_error(error_text, key, value):
    message = error_text(f"{DIGITS}  {key}: {value}\n")
    assert f"line 4: data.{key}: {value} " in message
    assert "set " in message


@pytest.mark.parametrize("value", ["ten", "true", "null", ".nan", "[1]", "{a: 1}"])
def test_a_split_size_of_a_wrong_type_is_one_error(error_text, value):
    message = error_text(f"{DIGITS}  validation: {value}\n")
    assert "line 4: data.validation is " in message
    assert "a share (0.1) or a number (5000)" in message
    assert "\n" not in message


@pytest.mark.parametrize("value", ["0.1", "0.999", "1", "5000"])
def test_a_split_size_is_a_share_or_a_number(load_text, value):
    data = load_text(f"{DIGITS}  validation: {value}\n  test: {value}\n").data
    assert data.validation == data.test == float(value)


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ("kind: digit", ['data.kind is "digit"', "did you mean digits?"]),
        ("kind: digits\n  source: x.npz", ["remove data.source"]),
        ("kind: npz", ["data.kind is npz, which requires data.source"]),
        (
            "kind: npz\n  source: x\n  resize: {height: 1, width: 1}",
            ["data.resize is for images, not for npz"],
        ),
        ("kind: images\n  source: x\n  resize: {height: 0, width: 1}", ["data.resize.height is 0"]),
        ("kind: npz\n  source: x\n  sha256: abc", ['data.sha256 is "abc"', "SHA-256 of the archive"]),
        ("kind: digits\n  scale: 0", ["data.scale is 0", "greater than 0"]),
        ("kind: digits\n  scale: 1e999", ["line 4", "too large"]),
    ],
)
def test_invalid_data_is_an_error(error_text, data, parts):
    message = error_text(f"name: x\ndata:\n  {data}\n")
    assert [part for part in parts if part not in message] == []


def test_validation_on_the_test_split_excludes_model_selection(load_text, error_text):
    text = DIGITS + "  validation: test\n"
    message = error_text(text + "training: {early_stopping: {}}\n")
    for part in ("training.early_stopping", "gate: null", "data.validation: 0.1", "evaluated"):
        assert part in message
    assert "early_stopping" not in error_text(text)
    assert "ReduceLROnPlateau" in error_text(text + "training: {callbacks: [ReduceLROnPlateau]}\n")
    assert load_text(text + "gate: null\n").data.validation == "test"


def test_an_error_of_a_section_names_the_origin_of_the_key(error_text):
    """The key may come from an option or a variable, and the error may be about several keys."""
    text = f"{DIGITS}gate:\n  minimum:\n    accuracy: 0.9\n    acuracy: 0.9\n"
    assert "x.yaml, line 7: gate.minimum.acuracy" in error_text(text)
    valid = text.replace("acuracy", "log_loss").replace("    log_loss: 0.9\n", "")
    assert error_text(valid, "gate.minimum.acuracy=1").startswith(
        "--set gate.minimum.acuracy: gate.minimum.ac"
    )
    message = error_text(valid, MODELYARD_PROBLEM="regression")
    assert "x.yaml, line 3: problem is regression, but the targets of data.kind digits" in message
    assert error_text(valid, "model.build='m:f'").startswith("--set model.build: model.build and model.code")


@pytest.mark.parametrize("name", ["Digits", "-x", "x-", "a_b", "a" * 64, "''", "../x"])
def test_an_invalid_name_is_an_error(error_text, name):
    message = error_text(f"name: {name}\ndata: {{kind: digits}}\n")
    assert "lower-case letters, digits and dashes" in message
    assert message.count('"') == 2


def test_all_problems_are_listed_with_their_origins(error_text):
    message = error_text(
        DIGITS + "serving: 3\n", "training.epochs=ten", MODELYARD_DATA__SORCE="x", MODELYARD_STORE="gs://x"
    )
    first, *lines = message.splitlines()
    assert first == "The configuration has 4 errors."
    assert len(lines) == 4
    for part in (
        "x.yaml, line 4: serving is 3",
        '--set training.epochs: training.epochs is "ten"',
        "MODELYARD_DATA__SORCE: data.sorce is not a key; did you mean data.source",
        'MODELYARD_STORE: store is "gs://x" and must be a section',
    ):
        assert part in message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("epochs", "--set epochs: this is not KEY=VALUE"),
        ("=3", "--set =3: this is not KEY=VALUE"),
        ("a..b=3", "--set a..b=3: this is not KEY=VALUE"),
        ("name.x=3", "name is 'x' and has no keys"),
        ("training.epochs=[", "--set training.epochs, line 1: this is not YAML"),
    ],
)
def test_an_invalid_override_is_an_error(error_text, override, expected):
    assert expected in error_text(DIGITS, override)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the configuration is empty. It needs at least `name`"),
        ("# nothing\n", "the configuration is empty"),
        ("[1, 2]", "the configuration is [1, 2], which has no keys"),
        ("digits", 'the configuration is "digits", which has no keys'),
    ],
)
def test_a_file_without_sections_is_an_error(error_text, text, expected):
    message = error_text(text)
    assert expected in message
    assert "modelyard config init" in message


def test_an_unreadable_file_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"missing.yaml: there is no such file\. `modelyard config init"):
        load(tmp_path / "missing.yaml", environ={})
    os.mkfifo(tmp_path / "fifo.yaml")
    with pytest.raises(ConfigError, match=r"fifo\.yaml.*cannot be read"):
        load(tmp_path / "fifo.yaml", environ={})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, environ={})
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    with pytest.raises(ConfigError, match="it is not UTF-8 text"):
        load(tmp_path / "latin.yaml", environ={})


def test_load_section_reads_only_one_section():
    environ = {"MODELYARD_STORE__URL": "gs://b/p", "MODELYARD_DATA__SOURCE": "x"}
    assert load_section("store", Store, environ=environ).url == "gs://b/p"
    assert load_section("store", Store, ["store.url=project"], environ).url == "project"
    assert load_section("store", Store, environ={}).url == ".modelyard/models"
    with pytest.raises(
        ConfigError, match=r"MODELYARD_STORE__URI: store\.uri is not a key; did you mean store\.url"
    ):
        load_section("store", Store, environ={"MODELYARD_STORE__URI": "x"})


def test_the_limit_of_a_whole_number_is_printed_without_an_exponent(error_text):
    assert "4294967296" in error_text(DIGITS, "training.seed=4294967296")


def test_an_error_names_the_key_of_an_option_once(error_text):
    assert error_text(DIGITS, "data.test=1.5").count("data.test") == 1
