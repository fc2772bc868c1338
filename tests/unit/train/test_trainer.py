"""The step `train`: settings and output."""

import numpy as np
import pytest

from modelyard.components.errors import TrainError
from modelyard.components.train.backend import keras

FAST = {"learning_rate": 0.05}


def test_training_without_validation_examples_has_no_validation_metrics(train_env) -> None:
    train_env.features(*train_env.images(), validation=0)
    assert set(train_env.fit()[0].metrics) == {"loss", "accuracy"}


def test_equal_seeds_give_equal_weights(train_env) -> None:
    runs = []
    train_env.features(*train_env.images(), validation=0)  # faster without validation
    for seed in (1, 1, 2):
        _, network = train_env.fit({"filters": [4], "dense": [8], "dropout": 0.3}, seed=seed)
        runs.append(network.get_weights())
    for first, second, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(first, second)
        assert not np.array_equal(first, other)


@pytest.mark.parametrize("patience", [1, 50])
def test_early_stopping_restores_the_best_weights(train_env, patience) -> None:
    """Random labels make validation worse after a few epochs, whether it stops early or not."""
    images, labels = train_env.images(48)
    train_env.features(images, np.random.default_rng(0).permutation(labels), validation=30)
    stopping = {"monitor": "val_loss", "patience": patience}
    history, model = train_env.fit(epochs=10, early_stopping=stopping, optimizer_settings=FAST)
    losses = history.metrics["val_loss"]
    assert history.epochs == len(losses)
    assert history.stopped_early == (patience == 1) == (len(losses) < 10)
    assert losses[-1] > min(losses)
    images, classes = train_env.images(30, seed=1)
    assert model.evaluate(images, classes, verbose=0)[0] == pytest.approx(min(losses), abs=1e-4)


def test_early_stopping_without_validation_examples_is_an_error(train_env) -> None:
    train_env.features(*train_env.images(), validation=0)
    with pytest.raises(TrainError, match=r"early_stopping monitors validation.* Raise data.validation"):
        train_env.train(early_stopping={})
    assert train_env.output_files() == []


@pytest.mark.parametrize("steps", [1, 64])
def test_a_nan_loss_is_an_error(train_env, steps) -> None:
    with pytest.raises(
        TrainError, match=r"loss became (nan|inf) in epoch 1\. .*learning_rate, set .*clipnorm"
    ):
        train_env.train(
            epochs=50, optimizer="sgd", optimizer_settings={"learning_rate": 1e38}, steps_per_execution=steps
        )
    assert train_env.output_files() == []


def test_class_weights_apply_to_the_training_loss_only(train_env) -> None:
    images, labels = train_env.images(48)
    train_env.features(images, np.where(labels == 2, 0, labels))  # 32, 16 and 0 examples
    no_learning = {
        "optimizer": "sgd",
        "optimizer_settings": {"learning_rate": 1e-9},
        "epochs": 1,
        "batch_size": 48,
    }
    unweighted, network = train_env.fit(**no_learning)
    losses = -np.log(np.asarray(network(images))[np.arange(48), np.where(labels == 2, 0, labels)])
    for setting, weights in (({"dog": 3.0}, [1, 3]), ("balanced", [0.5, 1])):
        weighted, _ = train_env.fit(class_weights=setting, **no_learning)
        expected = (losses * np.where(labels == 1, weights[1], weights[0])).mean()
        assert weighted.metrics["loss"][0] == pytest.approx(expected, rel=1e-4)
        assert weighted.metrics["val_loss"] == pytest.approx(unweighted.metrics["val_loss"], rel=1e-4)
    with pytest.raises(TrainError, match=r"class_weights has 'cow', which is not a class.*cat, dog, emu"):
        train_env.fit(class_weights={"cow": 1}, **no_learning)


def test_mixed_precision_applies_to_all_but_the_last_layer(train_env) -> None:
    train_env.features(*train_env.images(), validation=0)
    _, network = train_env.fit(precision="mixed_float16", epochs=1)
    computed = {layer.name: layer.compute_dtype for layer in network.layers}
    assert (computed["convolution_1"], computed["classes"]) == ("float16", "float32")
    assert type(network.optimizer).__name__ == "LossScaleOptimizer"
    assert keras.config.dtype_policy().name == "float32"


def test_keras_objects_are_used_and_recorded(train_env) -> None:
    history = train_env.train(
        {"filters": [4], "dense": [8], "kernel_regularizer": {"name": "L2", "l2": 100}},
        epochs=3,
        loss={"name": "CategoricalCrossentropy", "label_smoothing": 0.1},
        metrics=[{"name": "F1Score", "average": "macro"}],
        callbacks=[{"name": "ReduceLROnPlateau", "min_delta": 9.0, "monitor": "val_f1_score", "patience": 1}],
        early_stopping={
            "monitor": "val_f1_score",
            "baseline": 2,
            "patience": 3,
            "restore_best_weights": False,
        },
    )
    assert history.metrics["val_loss"][0] > 10  # includes the L2 penalty
    assert set(history.metrics) > {"f1_score", "val_f1_score"}
    assert history.metrics["learning_rate"][0] > history.metrics["learning_rate"][-1]
    assert history.settings["loss"]["config"]["label_smoothing"] == pytest.approx(0.1)
    assert history.settings["optimizer"]["config"]["beta_1"] == pytest.approx(0.9)
    assert history.settings["kernel_regularizer"] == {"class_name": "L2", "config": {"l2": 100}}
    assert history.settings["early_stopping"]["config"]["start_from_epoch"] == 0
    assert history.settings["callbacks"][0]["class_name"] == "ReduceLROnPlateau"
    with pytest.raises(TrainError, match=r"f1_score has 3 values.*average: macro"):
        train_env.train(metrics=["F1Score"])
    with pytest.raises(TrainError, match=r"cannot compute.*ValueError.*rank 2"):
        train_env.train({"filters": [4], "kernel_regularizer": "OrthogonalRegularizer"})
