"""Write or check the generated parts of the README, the documentation and the type stubs.

    python docs/generate.py            write
    python docs/generate.py --check    write nothing; exit with 1 if something is out of date

Costs and state of each method are measured: the script creates the method, takes one step and reads
its ledger.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import measured
import stub
import suites
import torch

from anyorder import Composite, methods
from anyorder.hyper import Hyper
from anyorder.optimizer import Optimizer
from anyorder.optimizer.options import COMMON
from anyorder.oracle.kinds import ANSWERS, COMPOSITE

ROOT = Path(__file__).parent.parent
SIDE = 64  # the parameter that is measured on is a square hidden matrix with this side
#: Options of every optimizer's constructor, beside hyper-parameters.
CONSTRUCTOR = [
    name
    for name, parameter in inspect.signature(Optimizer.__init__).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
]
NOTE = "<!-- Written by docs/generate.py; change the code, not this file. -->"


def main() -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 if stale")
    check: bool = parser.parse_args().check
    stale: list[str] = []
    for path, text in wanted().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.relative_to(ROOT).as_posix())
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    for path in left_over():
        stale.append(path.relative_to(ROOT).as_posix())
        if not check:
            path.unlink()
    if check and stale:
        print(f"out of date: {', '.join(stale)}; run python docs/generate.py", file=sys.stderr)
        return 1
    print("\n".join(f"wrote {name}" for name in stale) or "everything is up to date")
    return 0


def wanted() -> dict[Path, str]:
    """All generated files with the text they should have."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    site = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    common = (ROOT / "docs/options.md").read_text(encoding="utf-8")
    suite = (ROOT / "docs/suite-and-race.md").read_text(encoding="utf-8")
    compare = (ROOT / "docs/compare.md").read_text(encoding="utf-8")
    suite = region(suite, "quick", f"\n\n{suites.suite('quick')}\n\n")
    suite = region(suite, "regret", f"\n\n{suites.regret()}\n\n")
    mark = "    # {}\n"
    for folder in ("methods", "decisions"):
        site = region(site, folder, navigation(folder), mark)
    files = {
        ROOT / "README.md": region(readme, "methods", f"\n\n{table('docs/methods/')}\n\n"),
        ROOT / "zensical.toml": site,
        ROOT / "docs/options.md": region(common, "options", f"\n\n{options(COMMON)}\n\n"),
        ROOT / "docs/suite-and-race.md": suite,
        ROOT / "docs/compare.md": region(compare, "aa", f"\n\n{measured.aa()}\n\n"),
        ROOT / "docs/benchmarks.md": measured.page(),
        ROOT / "src/anyorder/__init__.pyi": stub.text(),
        ROOT / "docs/methods/index.md": INDEX.format(note=NOTE, table=table("")),
        ROOT / "docs/decisions/index.md": DECISIONS.format(note=NOTE, list=decisions()),
    }
    for name in methods.names():
        files[ROOT / f"docs/methods/{name}.md"] = page(name)
    return files


def left_over() -> list[Path]:
    """Pages of methods that are no more."""
    known = {*methods.names(), "index"}
    return [p for p in (ROOT / "docs/methods").glob("*.md") if p.stem not in known]


def region(text: str, name: str, content: str, mark: str = "<!-- {} -->") -> str:
    """``text`` with ``content`` between the marks called ``name``."""
    start, end = mark.format(f"generated: {name}"), mark.format(f"end: {name}")
    assert start in text, f"no {start}"
    before, _, rest = text.partition(start)
    _, found, after = rest.partition(end)
    assert found, f"no {end}"
    return f"{before}{start}{content}{end}{after}"


def navigation(folder: str) -> str:
    """The pages of a folder as entries of zensical.toml."""
    pages = sorted((ROOT / "docs" / folder).glob("*.md"))
    names = [p.name for p in pages if p.name != "index.md"]
    if folder == "methods":  # some pages may have to be written first
        names = [f"{name}.md" for name in methods.names()]
    return "".join(f'    "{folder}/{name}",\n' for name in ["index.md", *names])


# Tables -----------------------------------------------------------------------------------------


def table(prefix: str) -> str:
    """All methods: one row each, linked with pages below ``prefix``."""
    rows = [
        "| method | order | needs | oracle calls per step | state | description |",
        "|---|---|---|---|---|---|",
    ]
    for name in methods.names():
        kind = methods.get(name)
        calls, state = one_step(kind)
        rows.append(
            f"| [`{name}`]({prefix}{name}.md) | {kind.order} | {', '.join(sorted(kind.needs))} | "
            f"{calls} | {state} B | {first_line(kind)} |"
        )
    return "\n".join(rows)


def one_step(kind: type[Optimizer]) -> tuple[str, str]:
    """What one step asked for, and the state it left for a hidden matrix, in words."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(SIDE, SIDE, bias=False) for _ in range(3)]
    model, x = torch.nn.Sequential(*layers), torch.randn(8, SIDE)
    optimizer = kind(model, engine="eager")
    closure = Composite(lambda: model(x), lambda outputs: (outputs**2).mean())
    optimizer.step(closure if COMPOSITE & kind.needs else lambda: closure())
    calls = optimizer.calls
    words = [
        f"{count} {answer.one if count == 1 else answer.many}"
        for answer in ANSWERS
        if (count := getattr(calls, answer.name)) and answer.name != "ranked"
    ]
    if calls.ranked:
        words[-1] += f" of {calls.ranked} points in total"
    state = sum(
        value.numel() * value.element_size()
        for value in optimizer.state[layers[1].weight].values()
        if isinstance(value, torch.Tensor)
    )
    return " + ".join(words), f"{state / SIDE**2:g}"


def first_line(kind: type[Optimizer]) -> str:
    """The first line of the docstring, without the full stop."""
    return (inspect.getdoc(kind) or "").splitlines()[0].rstrip(".")


def own(kind: type[Optimizer]) -> dict[str, Hyper]:
    """The hyper-parameters that are the method's own."""
    return {name: h for name, h in kind.hypers.items() if COMMON.get(name) is not h}


def options(hypers: Mapping[str, Hyper]) -> str:
    """Hyper-parameters as a table."""
    rows = [
        "| option | default | allowed | search space | unit | description |",
        "|---|---|---|---|---|---|",
    ]
    for name, declared in hypers.items():
        search = ""
        if declared.search in ("log", "linear"):
            search = f"{declared.low:g} to {declared.high:g}, {declared.search}"
        elif declared.search == "choice":
            search = declared.range() or "True | False"
        allowed = declared.range().replace("|", "\\|")
        rows.append(
            f"| `{name}` | `{declared.default!r}` | {allowed} | {search} | {declared.unit} | "
            f"{declared.doc} |"
        )
    return "\n".join(rows)


# Pages ------------------------------------------------------------------------------------------

INDEX = """{note}

# Methods

Each method is one file in `src/anyorder/methods`. The file name is the method's name in the
registry, on the command line and here. Oracle calls and state (bytes per parameter) are measured
with the default options on a hidden float32 matrix.

{table}

*Order* is the information that a method uses: `rank` (an ordering of candidates), `0` (values), `1`
(gradients) or `2` (curvature). `anyorder list` prints this table and `anyorder show NAME` describes
one method. To add your own, see [Writing a method](../writing-a-method.md).
"""

PAGE = """{note}

# {name}

- Order **{order}**. Needs {needs}.
- Cost per step with the default options: {calls}.
- State: {state} bytes per float32 parameter.
- On the command line: `--methods {name}`.

```python
anyorder.{signature}
```

::: anyorder.methods.{name}.{cls}
    options:
      members: false
      show_root_heading: false
      show_root_toc_entry: false
      show_signature: false

## Options

{common}

{options}
{rules}"""

RULE = """
## Rules

The functions that [the engine](../engine.md) runs on flat slices of the parameters and their state.

{code}
"""


def shared(kind: type[Optimizer]) -> str:
    """The common options that a method has, in a sentence."""
    names = [*(set(kind.hypers) - set(own(kind))), *CONSTRUCTOR]
    words = [f"`{name}`" for name in sorted(names)]
    text = (
        "Hyperparameters of this method. It also accepts the [common options](../options.md) "
        f"{', '.join(words[:-1])} and {words[-1]}."
    )
    return textwrap.fill(text, 100, break_long_words=False)


def page(name: str) -> str:
    """The page of one method."""
    kind = methods.get(name)
    calls, state = one_step(kind)
    return PAGE.format(
        note=NOTE,
        name=name,
        order=kind.order,
        needs=", ".join(f"`{need}`" for need in sorted(kind.needs)),
        calls=calls,
        state=state,
        common=shared(kind),
        cls=kind.__name__,
        signature=signature(kind),
        options=options(own(kind)),
        rules=rules(kind),
    )


DECISIONS = """{note}

# Decisions

One page per design decision: what was decided, why, what it costs, and what would change it.

{list}
"""


def decisions() -> str:
    """One line for each decision: its page's heading."""
    rows: list[str] = []
    for path in sorted((ROOT / "docs/decisions").glob("[0-9]*.md")):
        heading = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        rows.append(f"- [{heading}]({path.name})")
    return "\n".join(rows)


def signature(kind: type[Optimizer]) -> str:
    """The call with the method's own settings, in lines that fit."""
    parts = ["params", "*", *(f"{name}={h.default!r}" for name, h in own(kind).items()), "..."]
    return f"{kind.__name__}(\n    " + "\n    ".join(textwrap.wrap(", ".join(parts), 90)) + "\n)"


def rules(kind: type[Optimizer]) -> str:
    """The source of the arithmetic of the method's rules."""
    functions = dict.fromkeys(rule.function for each in kind.rules.values() for rule in each)
    found = [inspect.getsource(function).rstrip() for function in functions]
    return RULE.format(code="\n\n".join(f"```python\n{code}\n```" for code in found)) * bool(found)


if __name__ == "__main__":
    sys.exit(main())
