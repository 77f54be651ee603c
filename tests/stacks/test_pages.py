"""The pages about other libraries show files that are run, and nothing else."""

from __future__ import annotations

import re

from .conftest import EXAMPLES

ROOT = EXAMPLES.parent.parent.parent
PAGES = sorted((ROOT / "docs" / "stacks").glob("*.md"))


def test_python_on_the_pages_is_that_of_the_examples() -> None:
    shown: list[str] = []
    for page in PAGES:
        for code in re.findall(r"^ *```python\n(.*?)^ *```$", page.read_text("utf-8"), re.M | re.S):
            included = re.fullmatch(r'\s*--8<-- "docs/examples/stacks/(\w+)\.py"\s*', code)
            assert included, f"{page.name}: write the code into a file of docs/examples/stacks"
            shown.append(included.group(1))
    assert sorted(shown) == sorted(path.stem for path in EXAMPLES.glob("*.py"))


def test_every_example_is_run_by_a_test() -> None:
    tests = "".join(p.read_text("utf-8") for p in (ROOT / "tests" / "stacks").glob("test_*.py"))
    for path in EXAMPLES.glob("*.py"):
        assert re.search(rf'example\("{path.stem}"|"{path.name}"', tests), path.name
