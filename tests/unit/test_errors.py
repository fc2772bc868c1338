from modelyard.components import errors


def test_the_error_that_ended_a_step_is_made_again_from_its_log():
    lines = [
        "Traceback (most recent call last):",
        '  File "dataset.py", line 3, in ingest',
        "modelyard.components.errors.DataError: data.source /x is missing; check the path.",
    ]
    error = errors.from_log(lines)
    assert type(error) is errors.DataError
    assert str(error) == "data.source /x is missing; check the path."
    assert error.exit_code == 3


def test_the_last_error_counts_and_others_are_left_alone():
    lines = [
        "modelyard.components.errors.StoreError: first",
        "The above exception was the direct cause of the following exception:",
        "    modelyard.components.errors.TrainError: second",
        "tail",
    ]
    assert type(errors.from_log(lines)) is errors.TrainError
    assert errors.from_log(["ValueError: something else"]) is None
    assert errors.from_log(["modelyard.components.errors.NoSuchError: x"]) is None


def test_every_error_has_an_exit_code_of_its_own_or_its_parents():
    family = errors.ModelyardError.__subclasses__()
    codes = [kind.exit_code for kind in family]
    assert len(set(codes)) == len(codes)
    assert all(code > 1 for code in codes)
