"""What walking a graph counts: loops, branches, and what is not understood."""

from typing import Any

import pytest

from modelyard.components.train import graph
from modelyard.components.train.backend import keras, tf


def counted(function: Any, *shapes: tuple[int, ...]) -> graph.Work:
    """Return the work of a function of float32 tensors."""
    traced = tf.function(function, autograph=False)
    return graph.walk(traced.get_concrete_function(*(tf.TensorSpec(one, tf.float32) for one in shapes)).graph)


SQUARE = 2 * 5 * 5 * 5  # a product of two 5 x 5 matrices


def test_a_loop_that_counts_to_the_counter_of_another_is_a_lower_bound() -> None:
    def triangle(values: Any) -> Any:
        return keras.ops.fori_loop(
            0,
            4,
            lambda outer, found: keras.ops.fori_loop(
                0, outer, lambda _, inner: tf.matmul(inner, values), found
            ),
            values,
        )

    work = counted(triangle, (5, 5))  # six products: 0 + 1 + 2 + 3
    assert [reason for reason in work.unknown if reason.startswith("a loop of unknown length")]


def test_a_loop_within_a_loop_counts_as_often_as_both() -> None:
    def square(values: Any) -> Any:
        return keras.ops.fori_loop(
            0,
            4,
            lambda _, found: keras.ops.fori_loop(0, 3, lambda _, inner: tf.matmul(inner, values), found),
            values,
        )

    work = counted(square, (5, 5))
    assert (work.flops, work.unknown) == (4 * 3 * SQUARE, [])


@pytest.mark.parametrize("least", [None, 100])
def test_a_loop_that_may_end_before_its_most_is_a_lower_bound(least: int | None) -> None:
    def until(values: Any) -> Any:
        return tf.while_loop(
            lambda count, found: tf.logical_and(count < 100, tf.reduce_sum(found) > 0.01),
            lambda count, found: (count + 1, tf.matmul(found, values)),
            (0, values),
            maximum_iterations=least,
        )

    work = counted(until, (5, 5))
    assert work.flops == SQUARE
    assert [reason for reason in work.unknown if reason.startswith("a loop of unknown length")]


def test_a_loop_with_a_most_beside_its_own_end_counts_the_smaller() -> None:
    def both(values: Any) -> Any:
        return tf.while_loop(
            lambda count, _: count < 100,
            lambda count, found: (count + 2, tf.matmul(found, values)),
            (0, values),
            maximum_iterations=7,
        )

    work = counted(both, (5, 5))
    assert (work.flops, work.unknown) == (7 * SQUARE, [])


def test_a_loop_in_a_function_of_its_own_counts_in_the_gradient_too() -> None:
    @tf.function(autograph=False)
    def power(values: Any, other: Any) -> Any:
        return keras.ops.fori_loop(0, 6, lambda _, found: tf.matmul(found, other), values)

    def slope(values: Any, other: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(values)
            found = tf.reduce_sum(power(values, other))
        return tape.gradient(found, values)

    work = counted(slope, (5, 5), (5, 5))
    assert work.unknown == []
    assert work.flops - work.backward == 6 * SQUARE
    assert work.backward >= 6 * SQUARE


def test_of_branches_that_differ_the_smaller_is_a_lower_bound() -> None:
    def either(values: Any) -> Any:
        hard = tf.reduce_sum(values) > 0.0
        return tf.cond(
            hard, lambda: tf.linalg.inv(tf.matmul(values, values) @ values), lambda: values @ values
        )

    work = counted(either, (5, 5))
    assert work.flops == SQUARE
    assert [reason.partition(" (")[0] for reason in work.unknown] == [
        "MatrixInverse",
        "which branch is taken",
    ]


def test_branches_that_take_the_same_are_exact() -> None:
    def either(values: Any) -> Any:
        return tf.cond(tf.reduce_sum(values) > 0.0, lambda: values @ values, lambda: values @ values + 1.0)

    work = counted(either, (5, 5))
    assert (work.flops, work.unknown) == (SQUARE, [])


def test_a_loop_in_a_branch_knows_what_the_caller_gives() -> None:
    def either(values: Any) -> Any:
        often = tf.constant(3)

        def power() -> Any:
            return keras.ops.fori_loop(0, often, lambda _, found: found @ values, values)

        return tf.cond(tf.reduce_sum(values) > 0.0, power, power)

    work = counted(either, (5, 5))
    assert (work.flops, work.unknown) == (3 * SQUARE, [])


# Each: what TensorFlow writes for it, and the function of a 6 x 6 matrix.
HARD = {
    "RFFT2D": lambda values: tf.abs(tf.signal.rfft2d(values)),
    "FFTND": lambda values: tf.abs(tf.signal.fftnd(tf.cast(values, tf.complex64), [6, 6], [0, 1])),
    "IFFT2D": lambda values: tf.abs(tf.signal.ifft2d(tf.cast(values, tf.complex64))),
    "Lu": lambda values: tf.linalg.lu(values)[0],
    "Eig": lambda values: tf.abs(tf.linalg.eigvals(values)),
    "MatrixDeterminant": tf.linalg.det,
    "TridiagonalSolve": lambda values: tf.linalg.tridiagonal_solve(values[:3], values),
    "Cholesky": tf.linalg.cholesky,
}


@pytest.mark.parametrize("name", HARD)
def test_hard_work_that_shapes_do_not_tell_is_a_lower_bound(name: str) -> None:
    work = counted(HARD[name], (6, 6))
    assert [reason.partition(" (")[0] for reason in work.unknown] == [name]


def test_an_operation_that_is_not_of_tensorflow_is_a_lower_bound() -> None:
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops  # not among tf.raw_ops, as nobody's own is

    work = counted(lambda one: gen_xla_ops.xla_self_adjoint_eig(one, True, 10, 0.1).w, (6, 6))
    assert [reason.partition(" (")[0] for reason in work.unknown] == ["XlaSelfAdjointEig"]


def test_what_moves_values_about_is_not_called_hard() -> None:
    def moved(values: Any) -> Any:
        found = tf.linalg.band_part(tf.linalg.set_diag(values, values[0]), 1, 1)
        return tf.math.cumsum(tf.image.resize(found[None, :, :, None], (9, 9))), tf.linalg.diag(values)

    work = counted(moved, (6, 6))
    assert (work.flops, work.unknown) == (0, [])


def test_what_nothing_depends_on_does_not_run() -> None:
    @tf.function
    def wasteful(values: Any) -> Any:
        tf.matmul(values, values)
        return values + 1.0

    concrete = wasteful.get_concrete_function(tf.TensorSpec((8, 8), tf.float32))
    assert [one.type for one in concrete.graph.get_operations()].count("MatMul") == 1
    assert graph.walk(concrete.graph).flops == 0


def test_an_einsum_of_broadcast_axes() -> None:
    @tf.function
    def product(one: Any, other: Any) -> Any:
        return tf.einsum("...ij,...jk->...ik", one, other)

    sizes = tf.TensorSpec((2, 5, 3, 4), tf.float32), tf.TensorSpec((5, 4, 6), tf.float32)
    assert graph.walk(product.get_concrete_function(*sizes).graph).flops == 2 * 2 * 5 * 3 * 4 * 6
