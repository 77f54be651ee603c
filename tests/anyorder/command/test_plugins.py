"""Commands of other packages: listed without being loaded, loaded when called."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from anyorder.command import cli, plugins


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Call the command in this process."""
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *words: CliRunner().invoke(cli.app, list(words))


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Add a command 'extra' whose module holds the given text."""

    def add(text: str) -> None:
        (tmp_path / "extra_commands.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "extra_commands", raising=False)
        point = importlib.metadata.EntryPoint("extra", "extra_commands:app", plugins.GROUP)
        monkeypatch.setattr(plugins, "plugins", lambda: {"extra": point})

    return add


def test_an_added_command_is_listed_unloaded_and_runs(
    call: Callable[..., Any], plugin: Callable[[str], None]
) -> None:
    plugin(
        '"""``anyorder extra``: do something extra."""\nimport typer\napp = typer.Typer()\n'
        "@app.command()\ndef one(): typer.echo('it runs')\n"
        "@app.command()\ndef two(): typer.echo('so does this')\n"
    )
    assert "Do something extra." in call("--help").stdout
    assert "extra_commands" not in sys.modules
    assert call("extra", "one").stdout == "it runs\n"


def test_a_broken_added_command_breaks_nothing_else(
    call: Callable[..., Any], plugin: Callable[[str], None]
) -> None:
    plugin("import no_such_module_there")
    assert "extra" in call("--help").stdout
    assert call("list").exit_code == 0
    found = call("extra", "one")
    assert found.exit_code == 2
    assert "warning: the command 'extra' of extra_commands cannot be imported" in found.stderr


def test_a_summary_is_read_from_a_package_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "extra_package" / "inner"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('not to be run')")
    (folder / "__init__.py").write_text('"""Say hello."""')
    monkeypatch.syspath_prepend(str(tmp_path))
    point = importlib.metadata.EntryPoint("x", "extra_package.inner:app", plugins.GROUP)
    assert plugins.summary(point) == "Say hello."
    missing = importlib.metadata.EntryPoint("x", "no_such_package:app", plugins.GROUP)
    assert plugins.summary(missing) == "Added by another package."
