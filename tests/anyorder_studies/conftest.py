from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

TOY = """
from __future__ import annotations

from typing import ClassVar, final

from anyorder_studies.study import Claim, Study, mean_interval


@final
class Toy(Study):
    \"\"\"A toy | study.\"\"\"

    key: ClassVar[str] = "{key}"
    paper: ClassVar[int] = 7
    title: ClassVar[str] = "A toy <study>"
    claims: ClassVar = (
        Claim(
            quantity="gain", direction="higher", expected=2.0, threshold=1.0, tolerance=0.1,
            unit="times", source="table 1", text="It gains & wins.",
            central=True,
        ),
    )
    headline: ClassVar = "it gains, in the first sentence of the abstract"
    scales: ClassVar = {{
        "smoke": {{"seeds": 2}},
        "small": {{"seeds": 4}},
        "full": {{"seeds": 4, "need": "nothing more"}},
    }}

    def runs(self, scale):
        return [{{"seed": seed}} for seed in range(self.settings(scale)["seeds"])]

    def run(self, unit):
        {run}
        return {{"gain": 2.0 + 0.01 * unit["seed"], "curve": [1.0, 2.0]}}

    def measure(self, results):
        return {{"gain": mean_interval([result["gain"] for _, result in results])}}

    def figure(self, results, measurements):
        from matplotlib.figure import Figure

        figure = Figure()
        figure.subplots().plot(results[0][1]["curve"], label="gain")
        return figure
"""

MakePackage = Callable[..., str]


@pytest.fixture
def make_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakePackage]:
    """Make an importable package of studies; keyword arguments are folder=source of study.py."""
    made: list[str] = []

    def make(**studies: str) -> str:
        name = f"toy_studies_{len(made)}_{tmp_path.name.replace('-', '_')}"
        package = tmp_path / name
        package.mkdir()
        (package / "__init__.py").write_text("")
        for folder, source in studies.items():
            (package / folder).mkdir()
            (package / folder / "__init__.py").write_text("")
            (package / folder / "study.py").write_text(dedent(source))
        made.append(name)
        return name

    monkeypatch.syspath_prepend(str(tmp_path))
    yield make
    for name in made:
        for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
            del sys.modules[module]


def toy_source(key: str = "doe2020toy", run: str = "pass") -> str:
    return TOY.format(key=key, run=run)


@pytest.fixture
def toy_package(make_package: MakePackage) -> str:
    return make_package(doe2020toy=toy_source())


@pytest.fixture
def toy() -> Callable[..., str]:
    return toy_source
