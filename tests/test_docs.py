"""README and documentation: examples run, generated parts are up to date, the site stands alone."""

from __future__ import annotations

import contextlib
import http.server
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pytest
import typer

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]*)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INCLUDED = re.compile(r"^--8<-- \"(.+)\"\n", re.MULTILINE)
#: Pages whose Python is not there to be run, and why.
NOT_RUN = {
    "studies.md": "shows the outline of a class",
    "report.md": "reads the results of a comparison",
    **{f"stacks/{p.name}": "shows files that tests/stacks runs" for p in DOCS.glob("stacks/*")},
    **{f"methods/{p.name}": "generated: signatures and sources" for p in DOCS.glob("methods/*")},
}
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def name_of(page: Path) -> str:
    return page.relative_to(DOCS if DOCS in page.parents else ROOT).as_posix()


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """Pairs of a title, empty where there is none, and the code."""
    text = INCLUDED.sub(lambda line: (ROOT / line[1]).read_text("utf-8"), page.read_text("utf-8"))
    found = BLOCK.findall(text)
    return [(title, code) for kind, title, code in found if kind == language]


# Examples ---------------------------------------------------------------------------------------

WITH_CODE = [p for p in PAGES if name_of(p) not in NOT_RUN and blocks(p, "python")]


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_python_in_pages_runs(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "page"}
    for index, (title, code) in enumerate(blocks(page, "python")):
        if title:
            Path(title).write_text(code, encoding="utf-8")  # the page speaks of a file
        exec(compile(code, f"{name_of(page)}, block {index + 1}", "exec"), namespace)


def test_readme_shows_a_loop_and_a_function() -> None:
    loop, function = (code for _, code in blocks(ROOT / "README.md", "python"))
    assert "optimizer.step(lambda" in loop
    assert len(loop.splitlines()) <= 10
    assert "anyorder.minimize(" in function
    assert len([line for line in function.splitlines() if line.strip()]) <= 6


# Commands ---------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for _, code in blocks(page, "console"):
            for line in code.replace("\\\n", " ").splitlines():
                if line.startswith("$ anyorder"):
                    yield name_of(page), line.removeprefix("$ ")


@pytest.mark.parametrize(("page", "line"), list(commands()))
def test_commands_in_pages_exist(page: str, line: str) -> None:
    plugins: dict[str, str] = {}
    for path in ROOT.glob("distributions/*/pyproject.toml"):
        described = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        plugins |= described["entry-points"]["anyorder.commands"]
    words = shlex.split(line, comments=True)[1:]
    if words[0] in plugins:
        module, name = plugins[words.pop(0)].split(":")
    else:
        module, name = "anyorder.command.cli", "app"
    command = typer.main.get_command(getattr(importlib.import_module(module), name))
    with contextlib.suppress(typer.Exit):  # as --help ends
        _parse(command, words)


def _parse(command: Any, words: list[str], parent: Any = None) -> None:
    """Read a command line as the command would, without running anything."""
    context = command.make_context(command.name, words, parent=parent)
    if hasattr(command, "resolve_command"):
        _, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        _parse(inner, rest, context)


def test_wrong_commands_would_be_found() -> None:
    for line in ("anyorder compare digits --no-such-option", "anyorder no-such-command"):
        with pytest.raises(Exception, match=r"[Nn]o such"):
            test_commands_in_pages_exist("", line)


# Generated parts --------------------------------------------------------------------------------


def test_generated_parts_are_up_to_date() -> None:
    run = subprocess.run(
        [sys.executable, str(DOCS / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert run.returncode == 0, run.stderr


def test_every_page_is_in_the_navigation() -> None:
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    listed: list[str] = []
    entries: list[Any] = [site["project"]["nav"]]
    while entries:
        entry = entries.pop()
        if isinstance(entry, str):
            listed.append(entry)
        else:
            entries += entry.values() if isinstance(entry, dict) else entry
    there = {p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")}
    assert set(listed) == there
    assert len(listed) == len(set(listed))


# Docstrings -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def docstrings() -> ModuleType:
    pytest.importorskip("griffe")
    spec = importlib.util.spec_from_file_location("docstrings", DOCS / "docstrings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_latex_becomes_mathml(docstrings: ModuleType) -> None:
    text = docstrings.markdown(
        "A step :math:`x_t`.\n\n.. math::\n    a &= b \\\\\n    c &= d\n\nEnd."
    )
    assert text.count("<math ") == 2
    assert "<mtable" in text
    assert "math:" not in text
    assert text.endswith("End.\n")
    assert not re.search(r"[*_`]", text), "Markdown would take these for its own"


def test_roles_become_code(docstrings: ModuleType) -> None:
    assert docstrings.markdown("See :class:`~a.B` and :func:`c`.") == "See `a.B` and `c`.\n"


def test_sections_become_what_the_pages_know(docstrings: ModuleType) -> None:
    text = docstrings.markdown(
        "One.\n\nExample:\n    >>> 1\n    1\n\nReferences:\n    A (2000),\n    B (2001).\n"
    )
    assert "Examples:\n    >>> 1" in text
    assert "**References:** A (2000), B (2001)." in text


def test_items_of_lists_stand_apart(docstrings: ModuleType) -> None:
    text = docstrings.markdown("One.\n\n1. a\n   b\n\n   c\n2. d\n\nEnd.")
    assert text == "One.\n\n1. a\n    b\n\n    c\n\n2. d\n\nEnd.\n"


# The site ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from a copy, where a warning is an error."""
    pytest.importorskip("zensical")
    root = tmp_path_factory.mktemp("site")
    for name in ("zensical.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, root)
    for name in ("docs", "src"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    plain = os.environ | {"NO_COLOR": "1"}
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, env=plain)
    assert run.returncode == 0, run.stdout[-3000:]
    return root / "site"


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    loads = re.compile(
        r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=[\"']?(?:https?:)?//"
        r"|<link\b(?![^>]*rel=[\"']?(?:canonical|alternate))[^>]*\bhref=[\"']?(?:https?:)?//"
        r"|@import|url\([\"']?(?:https?:)?//"
    )
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        assert not loads.findall(path.read_text(encoding="utf-8")), path.relative_to(site)


def test_links_between_pages_lead_somewhere(site: Path) -> None:
    broken: list[str] = []
    for path in site.rglob("*.html"):
        if path.name == "404.html":
            continue
        for link in re.findall(r"<a\b[^>]*\bhref=[\"']?([^\"'> ]+)", path.read_text("utf-8")):
            target, _, anchor = unquote(link).partition("#")
            if re.match(r"\w+:", target):
                continue
            found = path if not target else (path.parent / target)
            found = found / "index.html" if found.is_dir() else found
            mark = re.compile(rf"\bid=[\"']?{re.escape(anchor)}[\"'> ]")
            if not found.exists() or (anchor and not mark.search(found.read_text("utf-8"))):
                broken.append(f"{path.relative_to(site)} -> {link}")
    assert not broken, broken


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    handler = partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("width", [1360, 390])
def test_the_site_in_a_browser(address: str, browser: Any, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    requested: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    for name in ("index.html", "methods/index.html", "methods/adahessian.html", "compare.html"):
        page.goto(address + name)
        assert page.locator("h1").is_visible()
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{name} is {wide} pixels wide"
    page.goto(address + "methods/adahessian.html")
    formula = page.locator("math[display=block]").first.bounding_box()
    assert formula["height"] > 60, "two rows, one of them a fraction in tall brackets"
    page.close()
    assert all(url.startswith(address) for url in requested)
    assert said == []
