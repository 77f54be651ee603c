"""Where the package lies, and the library that it belongs to.

In the repository the package is in ``../../src``; a source distribution has it in ``src``, where
the configuration looks. The distributions share the text of this file, and each needs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface


class Package(BuildHookInterface):
    """Adds the package to what is built from the repository; an editable wheel has a path."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before each build; ``version`` is ``editable`` for editable wheels."""
        if version != "editable" and not Path(self.root, "src").exists():
            package = self.metadata.name.replace("-", "_")
            inside = f"src/{package}" if self.target_name == "sdist" else package
            build_data["force_include"][f"../../src/{package}"] = inside


class Requirements(MetadataHookInterface):
    """Pins the library to the version of this distribution."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called once the version is known."""
        library = f"anyorder=={metadata['version']}"
        metadata["dependencies"] = [library, *self.config["dependencies"]]
