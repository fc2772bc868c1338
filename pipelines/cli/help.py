"""The help of commands, as kubectl and git print it: `predict NAME FILE...`, without Python types."""

from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

F = TypeVar("F", bound=Callable[..., Any])


class Group(typer.Typer):
    """A Typer app whose commands are of the class Command."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[F], F]:
        """Return a decorator that adds a command; `settings` are those of Typer."""
        return super().command(name, cls=Command, **settings)


class Command(TyperCommand):
    """A command whose help names its arguments without types."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line, such as `[OPTIONS]`, `NAME` and `FILE...`."""
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and the options."""
        arguments, options = [], []
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                name, description = record
                if param.param_type_name == "argument":
                    arguments.append((name.partition(" <")[0], description))
                else:
                    options.append(record)
        for title, records in (("Arguments", arguments), ("Options", options)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
