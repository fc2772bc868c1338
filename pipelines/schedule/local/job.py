"""What a schedule starts on this machine: `modelyard run`, with the configuration as it was applied.

<home>/schedules/<name>/
    3f9a….yaml   the configuration, whose later changes wait for the next `apply`
    log.txt      what runs said that cron started
    lock         held by such a run, and so there as long as one may be
"""

import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from modelyard.components.errors import ConfigError
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.config.schedule import Schedule
from modelyard.pipelines.schedule.local.files import write
from modelyard.pipelines.schedule.mark import Mark
from modelyard.pipelines.schedule.state import mark_of, schedule_of


@dataclass(frozen=True)
class Job:
    """What is started.

    Attributes:
        mark: says that it is modelyard's.
        schedule: when it is started.
        words: the command.
        text: the configuration, as YAML.
        path: the file for it.
        folder: the working directory.
        home: MODELYARD_HOME.
        deadline: seconds after which it is ended.
    """

    mark: Mark
    schedule: Schedule
    words: tuple[str, ...]
    text: str
    path: Path
    folder: Path
    home: Path
    deadline: int

    @classmethod
    def of(cls, config: Config, home: Path, deadline: int) -> "Job":
        """Return what a configuration asks for, started in the working directory.

        Raises:
            ConfigError: it has no schedule, or one that this machine cannot keep.
        """
        schedule = schedule_of(config)
        if schedule.concurrency > 1:
            raise ConfigError(
                f"schedule.concurrency is {schedule.concurrency}, and this machine runs one at a time. "
                "--set schedule.concurrency=1, or use an environment with Kubeflow Pipelines."
            )
        if "://" not in config.store.url:
            there = str(Path(config.store.url).expanduser().absolute())
            config = config.model_copy(update={"store": config.store.model_copy(update={"url": there})})
        text = config.model_copy(update={"schedule": None}).dump()
        digest = hashlib.sha256(text.encode()).hexdigest()
        path = home / "schedules" / config.name / f"{digest[:12]}.yaml"
        words = _words(path, schedule)
        contents = {"words": words, "folder": str(Path.cwd()), "home": str(home), "deadline": deadline}
        mark = mark_of(config, contents).model_copy(update={"config": str(path)})
        return cls(mark, schedule, words, text, path, Path.cwd(), home, deadline)

    @property
    def name(self) -> str:
        """Return the model's name."""
        return self.mark.name

    def keep(self, before: str | None) -> None:
        """Write the configuration, and remove those that no run reads any more.

        Args:
            before: the one before, which a run that has just started may still have to read.

        Raises:
            ConfigError: nothing can be written there.
        """
        write(self.path, self.text, "MODELYARD_HOME")
        for old in self.path.parent.glob("*.yaml"):
            if str(old) not in (str(self.path), before):
                old.unlink(missing_ok=True)


def _words(path: Path, schedule: Schedule) -> tuple[str, ...]:
    """Return the command, which needs no PATH."""
    program = Path(sysconfig.get_path("scripts")) / "modelyard"
    if not program.is_file():
        raise ConfigError(
            f"There is no program {program}, which the schedule would start. Install modelyard into the "
            "Python that runs it, as `make setup` does."
        )
    age = ("--force-after", schedule.force_after) if schedule.force_after else ()
    skip = ("--skip-unchanged", *age) if schedule.skip_unchanged else ()
    return (str(program), "run", str(path), *skip)
