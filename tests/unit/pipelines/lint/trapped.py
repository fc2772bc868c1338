"""A small pipeline for each trap of the parity list, which steps into it."""

from typing import List, NamedTuple  # noqa: UP035 - as KFP has it

from kfp import dsl

OUTSIDE = "what only this file has"
step = dsl.component(base_image="a:0123456789abcdef", install_kfp_package=False)


@step
def say(text: str) -> str:
    return text


@step
def named(text: str, other: dsl.OutputPath(str)) -> str:  # noqa: ARG001
    return text


@step
def several() -> NamedTuple("Several", [("decision", str), ("rows", List[str])]):  # noqa: UP006
    return "yes", ["a"]


@step
def make(model: dsl.Output[dsl.Model]) -> None:
    pass


@step
def take(model: dsl.Input[dsl.Model]) -> None:
    pass


@step
def listed() -> List[str]:  # noqa: UP006
    return ["a"]


@dsl.pipeline(name="a")
def decides_on_a_named_output():
    with dsl.If(several().outputs["decision"] == "yes"):
        say(text="promoted")


@dsl.pipeline(name="a")
def decides_on_a_named_output_far_above():
    told = named(text="a")
    with dsl.If(told.outputs["Output"] == "a"), dsl.If(told.outputs["other"] == "b"):
        say(text="promoted")


@dsl.pipeline(name="a")
def compares_with_a_quote(text: str):
    with dsl.If(text == "it's"):
        say(text="it is")


@dsl.pipeline(name="a")
def loops_over_a_named_output():
    with dsl.ParallelFor(several().outputs["rows"]) as row:
        say(text=row)


@dsl.pipeline(name="a")
def loops_over_artifacts(models: dsl.Input[List[dsl.Model]]):  # noqa: UP006
    with dsl.ParallelFor(models) as model:
        take(model=model)


@dsl.pipeline(name="a")
def chooses_between_artifacts(text: str):
    with dsl.If(text == "a"):
        one = make()
    with dsl.Else():
        other = make()
    take(model=dsl.OneOf(one.outputs["model"], other.outputs["model"]))


@dsl.pipeline(name="a")
def gives_what_a_branch_makes(text: str) -> str:
    with dsl.If(text == "a"):
        one = say(text="a")
    with dsl.Else():
        other = say(text="b")
    return dsl.OneOf(one.output, other.output)


@dsl.pipeline(name="a")
def goes_on_after_a_failure():
    say(text="b").after(say(text="a")).ignore_upstream_failure()


@dsl.pipeline(name="a")
def ends_twice():
    first = say(text="a")
    say(text="b").after(first).ignore_upstream_failure()
    say(text="c").after(first).ignore_upstream_failure()


@dsl.pipeline(name="a")
def goes_on_after_the_end():
    end = say(text="b").after(say(text="a")).ignore_upstream_failure()
    say(text="c").after(end)


@dsl.pipeline(name="a")
def inner():
    with dsl.ExitHandler(say(text="end")):
        say(text="a")


@dsl.pipeline(name="a")
def ends_within():
    inner()


@dsl.pipeline(name="a")
def asks_for_the_schedule():
    say(text=dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER)


@dsl.container_component
def any_program():
    return dsl.ContainerSpec(image="a:0123456789abcdef", command=["echo"])


@dsl.pipeline(name="a")
def runs_any_program():
    any_program()


@dsl.pipeline(name="a")
def imports():
    loaded = dsl.importer(artifact_uri="gs://bucket/model", artifact_class=dsl.Model)
    take(model=loaded.output)


@dsl.component(base_image="a:0123456789abcdef")
def installs(text: str) -> str:
    return text


@dsl.pipeline(name="a")
def installs_kfp():
    installs(text="a")


@dsl.component(base_image="a:0123456789abcdef", install_kfp_package=False, packages_to_install=["numpy"])
def installs_more(text: str) -> str:
    return text


@dsl.pipeline(name="a")
def installs_numpy():
    installs_more(text="a")


@step
def put_elsewhere(model: dsl.Output[dsl.Model]) -> None:
    model.uri = "gs://bucket/models/1"


@dsl.pipeline(name="a")
def puts_a_model_elsewhere():
    put_elsewhere()


@step
def forget() -> str:
    return OUTSIDE


@dsl.pipeline(name="a")
def forgets_what_is_around():
    forget()


@step
def count(rows: dict) -> None:
    pass


@dsl.pipeline(name="a")
def passes_a_dict():
    count(rows={"a": 1})


@step
def deploy(text: str) -> str:
    return text


@dsl.pipeline(name="a")
def deploys_from_the_cache():
    deploy(text="a")


@dsl.pipeline(
    name="a",
    pipeline_config=dsl.PipelineConfig(
        workspace=dsl.WorkspaceConfig(
            size="1Gi",
            kubernetes=dsl.KubernetesWorkspaceConfig(pvcSpecPatch={"accessModes": ["ReadWriteOnce"]}),
        )
    ),
)
def has_a_workspace():
    say(text="a")


TRAPS = {
    decides_on_a_named_output: "condition on a named output",
    decides_on_a_named_output_far_above: "condition on a named output",
    compares_with_a_quote: "quote in a condition",
    loops_over_a_named_output: "loop over a named output",
    loops_over_artifacts: "loop over artifacts",
    chooses_between_artifacts: "OneOf over artifacts",
    gives_what_a_branch_makes: "output of a branch",
    goes_on_after_a_failure: "ignore_upstream_failure",
    ends_twice: "two exit tasks",
    goes_on_after_the_end: "task after an exit task",
    ends_within: "exit task within a group",
    asks_for_the_schedule: "placeholder of a time",
    runs_any_program: "container component",
    imports: "importer",
    installs_kfp: "packages installed when a step starts",
    installs_numpy: "packages installed when a step starts",
    puts_a_model_elsewhere: "artifact with an address of its own",
    forgets_what_is_around: "names from outside of the function",
    passes_a_dict: "list or dict as a parameter",
    deploys_from_the_cache: "step from the cache that must run every time",
    has_a_workspace: "workspace",
}
