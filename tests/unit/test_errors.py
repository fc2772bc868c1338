import pytest

from modelyard.components import errors


def test_every_error_has_an_exit_code_of_its_own_or_its_parents():
    family = errors.ModelyardError.__subclasses__()
    codes = [kind.exit_code for kind in family]
    assert len(set(codes)) == len(codes)
    assert all(code > 1 for code in codes)


@pytest.mark.parametrize("kind", [errors.UnschedulableError, errors.ModelyardError])
def test_an_error_of_another_module_is_recorded_as_the_one_that_it_is_derived_from(kind):
    assert type("OtherError", (kind,), {"__module__": "elsewhere"}).public() is kind
