"""Finds studies by scanning folders. A broken study is reported and does not affect others."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from anyorder_studies.study import Study, StudyError

PACKAGE = "anyorder_studies"


@dataclass(frozen=True)
class Studies:
    """The result of a scan.

    Args:
        classes: Study classes by key, in the order of their keys.
        folders: The folder of each study, by key.
        broken: Error message by folder name, for folders whose study cannot be used.
    """

    classes: dict[str, type[Study]] = field(default_factory=dict[str, type[Study]])
    folders: dict[str, Path] = field(default_factory=dict[str, Path])
    broken: dict[str, str] = field(default_factory=dict[str, str])

    def get(self, key: str) -> type[Study]:
        """Return the study class for a key.

        Raises:
            StudyError: If there is no such study or it is broken; the message states the reason and
                suggests the closest key.
        """
        if key in self.broken:
            raise StudyError(f"study {key!r} cannot be used: {self.broken[key]}")
        if key not in self.classes:
            near = get_close_matches(key, self.classes, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            known = ", ".join(self.classes) or "none"
            raise StudyError(f"unknown study {key!r}{hint} (known: {known})")
        return self.classes[key]


def discover(package: str = PACKAGE) -> Studies:
    """Import every ``<package>/<folder>/study.py``.

    Args:
        package: Importable package with one folder per study.

    Returns:
        The studies and, for each folder that failed, the reason.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise StudyError(f"expected an importable package of studies, got {package!r}")
    found = Studies()
    roots = [Path(root) for root in spec.submodule_search_locations]
    for path in sorted(path for root in roots for path in root.glob("*/study.py")):
        folder = path.parent
        try:
            study = _study_class(f"{package}.{folder.name}.study", folder.name)
        except Exception as error:
            # An error in one study's module must not affect the other studies.
            found.broken[folder.name] = f"{type(error).__name__}: {error}"
        else:
            found.classes[study.key] = study
            found.folders[study.key] = folder
    return found


def _study_class(module_name: str, folder: str) -> type[Study]:
    module = importlib.import_module(module_name)
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Study)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
    ]
    if len(own) != 1:
        names = ", ".join(value.__name__ for value in own) or "none"
        raise StudyError(f"expected exactly one study class in study.py, found {names}")
    if own[0].key != folder:
        raise StudyError(f"expected the key {folder!r} of the folder, got {own[0].key!r}")
    return own[0]
