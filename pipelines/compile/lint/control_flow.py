"""Traps of conditions, loops, exit tasks and outputs: what kfp.local and the backend do differently."""

import re
from collections import Counter
from collections.abc import Iterator

from modelyard.pipelines.compile.lint.compiled import Compiled, Task, producer
from modelyard.pipelines.compile.lint.rule import Rule

UNNAMED = "Output"
CHANNEL = re.compile(r"inputs\.parameter_values\['([^']+)'\]")
TEXT = re.compile(r"'[^']*'(?=\s*(?:\)|&&|\|\||[=!<>]|$))")
ALL_COMPLETED = 2  # TriggerPolicy.ALL_UPSTREAM_TASKS_COMPLETED


def _conditions(compiled: Compiled) -> Iterator[tuple[Task, str]]:
    for task in compiled.tasks():
        if condition := task.spec.trigger_policy.condition:
            yield task, condition


def _named_condition(compiled: Compiled) -> Iterator[str]:
    for task, condition in _conditions(compiled):
        for channel in CHANNEL.findall(condition):
            found = producer(task, channel)
            if found and found[1] != UNNAMED:
                yield f"{task.place}, on {'.'.join(found)}"


def _quoted_condition(compiled: Compiled) -> Iterator[str]:
    for task, condition in _conditions(compiled):
        if "'" in TEXT.sub("", CHANNEL.sub("", condition)):
            yield f"{task.place}, if {condition}"


def _named_loop(compiled: Compiled) -> Iterator[str]:
    for task in compiled.tasks():
        channel = task.spec.parameter_iterator.items.input_parameter
        found = producer(task, channel) if channel else None
        if found and found[1] != UNNAMED:
            yield f"{task.place}, over {'.'.join(found)}"


def _artifact_loop(compiled: Compiled) -> Iterator[str]:
    for task in compiled.tasks():
        if task.spec.HasField("artifact_iterator"):
            yield task.place


def _one_of_artifacts(compiled: Compiled) -> Iterator[str]:
    for task in compiled.tasks():
        outputs = task.dag.outputs.artifacts.items() if task.dag is not None else ()
        for name, selected in outputs:
            if len(selected.artifact_selectors) > 1:
                yield f"{task.place}, {name}"


def _output_of_branch(compiled: Compiled) -> Iterator[str]:
    root = compiled.spec.root.dag
    tasks = {task.name: task for task in compiled.tasks() if task.within is None}
    selectors = [one for kept in root.outputs.artifacts.values() for one in kept.artifact_selectors]
    values = [kept.value_from_parameter for kept in root.outputs.parameters.values()]
    for one in (*selectors, *values):
        if (task := tasks.get(one.producer_subtask)) and _branches(task):
            yield f"the pipeline's output from {task.place}"


def _branches(task: Task) -> bool:
    """Say whether what comes out of a task may not be there."""
    if task.spec.trigger_policy.condition:
        return True
    inner = task.dag.tasks.values() if task.dag is not None else ()
    return any(one.trigger_policy.condition for one in inner)


def _waiters(compiled: Compiled) -> Iterator[Task]:
    """Yield the tasks that start whatever became of those before them."""
    for task in compiled.tasks():
        if task.spec.trigger_policy.strategy == ALL_COMPLETED:
            yield task


def _ignored_failure(compiled: Compiled) -> Iterator[str]:
    for task in _waiters(compiled):
        groups = [task.siblings[name].component_ref.name for name in task.spec.dependent_tasks]
        if not any(name.startswith("comp-exit-handler") for name in groups):
            yield task.place


def _shared_exit(compiled: Compiled) -> Iterator[str]:
    waited = [task.beside(name) for task in _waiters(compiled) for name in task.spec.dependent_tasks]
    yield from (f"after {place}" for place, count in Counter(waited).items() if count > 1)


def _after_exit(compiled: Compiled) -> Iterator[str]:
    exits = {task.place for task in _waiters(compiled)}
    for task in compiled.tasks():
        for name in task.spec.dependent_tasks:
            if task.beside(name) in exits:
                yield f"{task.place}, after {name}"


def _inner_exit(compiled: Compiled) -> Iterator[str]:
    yield from (task.place for task in _waiters(compiled) if task.within)


RULES = (
    Rule(
        "condition on a named output",
        "kfp.local skips the branch without a word, and the pipeline succeeds",
        "Let the task return the value that decides, and put the condition on its `.output`",
        _named_condition,
    ),
    Rule(
        "quote in a condition",
        "kfp.local cannot read the condition, and skips the branch without a word",
        "Compare with a text that has no quote in it",
        _quoted_condition,
    ),
    Rule(
        "loop over a named output",
        "kfp.local does not find the list",
        "Let the task return the list, and loop over its `.output`",
        _named_loop,
    ),
    Rule(
        "loop over artifacts",
        "the backend has no loop over artifacts, and kfp.local has",
        "Loop over parameters, or put the artifacts into one",
        _artifact_loop,
    ),
    Rule(
        "OneOf over artifacts",
        "kfp.local takes one artifact only, and the backend several",
        "Choose between parameters, or let each branch do what follows",
        _one_of_artifacts,
    ),
    Rule(
        "output of a branch",
        "nobody can say what the pipeline gives when the branch is not taken",
        "Let the pipeline return nothing, and write the result elsewhere",
        _output_of_branch,
    ),
    Rule(
        "ignore_upstream_failure",
        "the backend starts it as an exit hook, behind which nothing else can wait, and kfp.local as a task",
        "Use dsl.ExitHandler, or let the task before it succeed",
        _ignored_failure,
    ),
    Rule(
        "two exit tasks",
        "the backend keeps one exit hook for a task, and loses the other",
        "Keep one exit task",
        _shared_exit,
    ),
    Rule(
        "task after an exit task",
        "on the backend an exit task is no task that another could wait for",
        "Let the exit task do it",
        _after_exit,
    ),
    Rule(
        "exit task within a group",
        "the backend knows the end of a run, and not that of a group",
        "Put the ExitHandler around the whole pipeline",
        _inner_exit,
    ),
)
