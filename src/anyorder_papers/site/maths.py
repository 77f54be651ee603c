"""Formulas of a method, read from its module's docstrings without importing the module.

LaTeX after ``.. math::`` or between ``$$`` is converted to MathML, which browsers render natively.
If there is none, an indented block after a line that ends in ``::`` is shown as plain text.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import textwrap
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from latex2mathml.converter import convert
from markupsafe import Markup

MATHML = "http://www.w3.org/1998/Math/MathML"
# fmt: off
ELEMENTS = frozenset({
    "math", "menclose", "merror", "mfrac", "mi", "mmultiscripts", "mn", "mo", "mover", "mpadded",
    "mphantom", "mprescripts", "mroot", "mrow", "ms", "mspace", "msqrt", "mstyle", "msub",
    "msubsup", "msup", "mtable", "mtd", "mtext", "mtr", "munder", "munderover",
})
ATTRIBUTES = frozenset({
    "accent", "accentunder", "columnalign", "columnspacing", "depth", "display", "displaystyle",
    "fence", "form", "height", "largeop", "linethickness", "lspace", "mathvariant", "maxsize",
    "minsize", "movablelimits", "notation", "rowspacing", "rspace", "scriptlevel", "separator",
    "stretchy", "symmetric", "width",
})
# fmt: on
# The rest of its line, and the following lines with deeper indentation.
DIRECTIVE = re.compile(
    r"^(?P<pad>[ ]*)\.\.[ ]math::[ ]*(?P<first>[^\n]*)\n?"
    r"(?P<rest>(?:(?P=pad)[ ]+\S[^\n]*\n|[ ]*\n)*)",
    re.MULTILINE,
)
DOLLARS = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
LITERAL = re.compile(r"::\n\n(?P<block>(?:[ ]+\S[^\n]*\n|[ ]*\n)+)")


@dataclass(frozen=True)
class Formula:
    """One formula.

    Args:
        source: The source text.
        mathml: Markup that is safe to insert into a page, or ``None`` for plain text.
    """

    source: str
    mathml: Markup | None = None


@cache
def formulas(module: str) -> tuple[Formula, ...]:
    """Return the formulas in the docstrings of a module and of its public classes and functions.

    Args:
        module: Dotted name. For a package, its ``__init__.py`` is read.

    Returns:
        Formulas in the order of the file; empty if there is no such module or it has none.
    """
    path = _source(module)
    if path is None:
        return ()
    found: list[Formula] = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    public = [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
    ]
    for node in (tree, *public):
        found.extend(read_formulas(ast.get_docstring(node, clean=False) or ""))
    return tuple(dict.fromkeys(found))


def read_formulas(docstring: str) -> list[Formula]:
    """The formulas of one docstring: LaTeX, or else literal blocks."""
    text = inspect.cleandoc(docstring) + "\n"
    placed = [
        (match.start(), f"{match['first']}\n{textwrap.dedent(match['rest'])}".strip())
        for match in DIRECTIVE.finditer(text)
    ]
    placed += [(match.start(), match[1].strip()) for match in DOLLARS.finditer(text)]
    latex = [source for _, source in sorted(placed) if source]
    if latex:
        return [Formula(source, to_mathml(source)) for source in latex]
    blocks = [textwrap.dedent(match["block"]).strip("\n") for match in LITERAL.finditer(text)]
    return [Formula(block) for block in blocks if block and ">>>" not in block]


def to_mathml(latex: str) -> Markup | None:
    """Convert LaTeX; ``None`` if it cannot be converted or results in other than plain MathML."""
    # As in Sphinx: "&" aligns and a double backslash ends a line, without an environment.
    several = ("&" in latex or r"\\" in latex) and r"\begin" not in latex
    text = rf"\begin{{align*}}{latex}\end{{align*}}" if several else latex
    try:
        tree = ET.fromstring(convert(text, display="block"))
    except Exception:
        # The converter raises many types of errors; for any of them, the source is shown instead.
        return None
    for element in tree.iter():
        space, _, name = element.tag.rpartition("}")
        element.tag = name
        known = space == f"{{{MATHML}" and name in ELEMENTS
        if not known or not ATTRIBUTES.issuperset(element.attrib):
            return None
    # Serialised from the checked tree, so all text is escaped.
    return Markup(ET.tostring(tree, encoding="unicode"))


def _source(module: str) -> Path | None:
    """Return the file of a module; only its top-level package is looked up, nothing is imported."""
    top, *rest = module.split(".")
    if not all(part.isidentifier() for part in (top, *rest)):
        return None
    spec = importlib.util.find_spec(top)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        stem = Path(root).joinpath(*rest)
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.is_file():
                return path
    return None
