import errno
from pathlib import Path

import pytest

from modelyard.components import errors


def with_cause(error, cause=None):
    error.__cause__ = cause
    return error


def test_every_error_class_has_a_different_exit_code():
    family = errors.ModelyardError.__subclasses__()
    codes = [kind.exit_code for kind in family]
    assert len(set(codes)) == len(codes)
    assert all(code > 1 for code in codes)


@pytest.mark.parametrize("kind", [errors.UnschedulableError, errors.ModelyardError])
def test_an_error_of_another_module_is_recorded_as_its_base_class(kind):
    assert type("OtherError", (kind,), {"__module__": "other"}).public_class() is kind


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "x"), "/folder: No space left on device ("),
        (OSError(errno.EDQUOT, "x", "/disk/a"), "/disk/a: Disk quota exceeded. "),
        (OSError(errno.EMFILE, "x"), "ulimit -n"),
        (OSError(errno.EFBIG, "x"), "ulimit -f"),
        (OSError(errno.EACCES, "x", "/disk/a"), "/disk/a: Permission denied"),
        (OSError("100 requested and 8 written"), "No space left on device"),  # NumPy
        (
            RuntimeError("RESOURCE_EXHAUSTED: a.index; No space left on device"),
            "MODELYARD_HOME",
        ),  # TensorFlow
        (with_cause(ValueError("cannot close the archive"), OSError(errno.ENOSPC, "x")), "/folder: No space"),
    ],
)
def test_missing_disk_space_files_and_permissions_are_machine_errors(error, message):
    machine_error = errors.find_machine_error(error, Path("/folder"))
    assert message in str(machine_error)
    assert machine_error.exit_code == 15


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOENT, "x", "/a"), OSError(errno.EACCES, "port 80"), KeyError("x"), None]
)
def test_other_exceptions_are_not_machine_errors(error):
    assert errors.find_machine_error(error) is None


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/a b[1]*?\\#%:~é", None), ("/a\nb", "control"), ("/a\udce9", "UTF-8"), ("/{{$.x}}", "placeholder")],
)
def test_unusable_paths_are_explained(path, reason):
    problem = errors.describe_unusable_path(path)
    assert problem is None if reason is None else reason in problem
