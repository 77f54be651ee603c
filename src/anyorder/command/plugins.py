"""Commands that are imported only when called.

These are commands that need an extra, and commands of other packages, which register them as entry
points in :data:`GROUP`.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
from importlib import metadata
from pathlib import Path
from typing import Any

import typer
import typer.core
import typer.main

from anyorder.errors import AnyOrderError

GROUP = "anyorder.commands"
#: Commands of this package that need an extra.
OWN = tuple(
    metadata.EntryPoint(name, f"anyorder.command.{name}:app", GROUP)
    for name in ("compare", "gate", "race", "rank", "suite")
)


def plugins() -> dict[str, metadata.EntryPoint]:
    """Lazily imported commands, by name."""
    return {each.name: each for each in (*metadata.entry_points(group=GROUP), *OWN)}


def summary(point: metadata.EntryPoint) -> str:
    """First line of a plug-in's docstring, read without importing it."""
    with contextlib.suppress(Exception):
        top, _, rest = point.module.partition(".")
        spec = importlib.util.find_spec(top)
        assert spec is not None and spec.origin is not None
        path = Path(spec.origin)
        if rest:
            stem = path.parent.joinpath(*rest.split("."))
            path = stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        words = doc.splitlines()[0].split(": ", 1)[-1]
        return words[:1].upper() + words[1:]
    return f"Added by {point.dist.name if point.dist else 'another package'}."


class PluginGroup(typer.core.TyperGroup):
    """A group that imports some of its commands only when they are called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the imported commands, then of the lazy ones."""
        own = super().list_commands(ctx)
        return [*own, *(name for name in sorted(plugins()) if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command; for a lazy one a placeholder that only has its help."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in plugins():
            return own
        return typer.core.TyperCommand(cmd_name, help=summary(plugins()[cmd_name]))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The called command, imported now if necessary."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is None or name in self.commands or name not in plugins():
            return name, command, rest
        point = plugins()[name]
        try:
            return name, typer.main.get_command(point.load()), rest
        except Exception as error:
            what = f"error: {error}"
            if not isinstance(error, AnyOrderError):
                what = (
                    f"warning: the command {name!r} of {point.module} cannot be imported: "
                    f"{type(error).__name__}: {error}"
                )
            typer.echo(what, err=True)
            raise SystemExit(2) from error
