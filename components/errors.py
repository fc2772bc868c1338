"""What can go wrong, as one family.

    ModelyardError                 exit code
    ├── ConfigError                2   the configuration or the command line is wrong
    ├── DataError                  3   the data is missing, malformed or not what the config says
    ├── TrainError                 4   the model cannot be built, trained or exported
    │   └── TooLargeError          4   it needs more memory than there is
    ├── EvaluateError              5   the model cannot be scored
    ├── DeployError                6   the version cannot be verified or promoted
    ├── StoreError                 7   the model store cannot be reached, read or written
    │   ├── NotFoundError          7   no such model, version or object
    │   ├── ConflictError          7   somebody else changed it meanwhile
    │   └── UnreachableError       7   it does not answer; later it may
    ├── ServeError                 8   the server cannot start, or does not answer
    ├── ClusterError               9   the cluster cannot be reached, or refuses what is asked
    ├── BackendError              10   Kubeflow Pipelines cannot be reached, or refuses what is asked
    ├── StuckError                11   a pod of a run cannot start: no node has room, or no image comes
    ├── CancelledError            12   the run was cancelled
    └── PlanError                 13   no node can take a step, or the plan says that it cannot succeed

A message is one paragraph: what was found (the bad value), what is wrong with it, what to do next.
An exception outside the family is a bug and ends with exit code 1.

A step runs in a process of its own, which ends with a traceback; its last lines name the class and
the message, and `from_log` makes the error again from them, on a laptop and from a pod's log alike.
"""

import re


class ModelyardError(Exception):
    """Base of every error that modelyard raises on purpose."""

    exit_code = 1


class ConfigError(ModelyardError):
    """The configuration or the command line is wrong."""

    exit_code = 2


class DataError(ModelyardError):
    """The data is missing, malformed or not what the configuration says."""

    exit_code = 3


class TrainError(ModelyardError):
    """The model cannot be built, trained or exported."""

    exit_code = 4


class TooLargeError(TrainError):
    """The model, or a batch of it, needs more memory than there is."""


class EvaluateError(ModelyardError):
    """The model cannot be scored."""

    exit_code = 5


class DeployError(ModelyardError):
    """The version cannot be verified or promoted."""

    exit_code = 6


class StoreError(ModelyardError):
    """The model store cannot be reached, read or written."""

    exit_code = 7


class NotFoundError(StoreError):
    """No such model, version or object."""


class ConflictError(StoreError):
    """Somebody else changed the object meanwhile."""


class UnreachableError(StoreError):
    """The store does not answer; later it may."""


class ServeError(ModelyardError):
    """The server cannot start, or does not answer."""

    exit_code = 8


class ClusterError(ModelyardError):
    """The cluster cannot be reached, or refuses what is asked."""

    exit_code = 9


class BackendError(ModelyardError):
    """Kubeflow Pipelines cannot be reached, or refuses what is asked."""

    exit_code = 10


class StuckError(ModelyardError):
    """A pod of a run cannot start: no node has room for it, or its image does not come."""

    exit_code = 11


class CancelledError(ModelyardError):
    """The run was cancelled, or a rollout was told to end."""

    exit_code = 12


class PlanError(ModelyardError):
    """No node can take a step, or the plan says that it cannot succeed: memory, budget or deadline."""

    exit_code = 13


_FAMILY: dict[str, type[ModelyardError]] = {
    kind.__name__: kind
    for kind in (
        ConfigError,
        DataError,
        TrainError,
        TooLargeError,
        EvaluateError,
        DeployError,
        StoreError,
        NotFoundError,
        ConflictError,
        UnreachableError,
        ServeError,
        ClusterError,
        BackendError,
        StuckError,
        CancelledError,
        PlanError,
    )
}
_ANSI = re.compile(r"\x1b\[[0-9;]*m")  # Keras prints in bold
_LONGEST = 400
_LAST_LINE = re.compile(r"^\s*modelyard\.components\.errors\.(\w+): (.*)$")


def from_log(lines: list[str]) -> ModelyardError | None:
    """Return the error that a step's log ends with, or None when it ended in another way."""
    for line in reversed(lines):
        if (found := _LAST_LINE.match(line)) and found[1] in _FAMILY:
            return _FAMILY[found[1]](found[2])
    return None


def describe(error: BaseException) -> str:
    """Return the class and text of a library's exception as one bounded line that ends with a full stop."""
    text = str(error.args[0] if len(error.args) == 1 else error)  # str() of a KeyError is a repr
    text = " ".join(_ANSI.sub("", text).split())
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + " …"
    return f"{type(error).__name__}: {text}".rstrip(".: ") + "."
