"""Docstrings, as the documentation shows them.

Docstrings of this package are plain text with three marks: ``:math:`` and ``.. math::`` for LaTeX,
and roles such as ``:class:`Oracle```. Here they become Markdown: LaTeX becomes MathML, which
browsers draw without any script or font from elsewhere, and roles become code.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import Any

import griffe
from latex2mathml.converter import convert

MATH_BLOCK = re.compile(
    r"^(?P<pad>[ ]*)\.\.[ ]math::[ ]*(?P<first>[^\n]*)\n"
    r"(?P<rest>(?:(?P=pad)[ ]+\S[^\n]*\n|[ ]*\n)*)",
    re.MULTILINE,
)
MATH = re.compile(r":math:`([^`]+)`")
ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?([^`<>]+)`")
REFERENCES = re.compile(r"^References:\n((?:[ ]+\S.*\n?)+)", re.MULTILINE)
EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
LABEL = re.compile(
    r"^(State|Oracle calls per step|Departures from [^:\n]*|Blocks):[ ]", re.MULTILINE
)
ITEM = re.compile(r"^\d+\. ")


class PlainDocstrings(griffe.Extension):
    """Turns docstrings into Markdown when they have been read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(docstring: str) -> str:
    """The docstring in Markdown."""
    text = inspect.cleandoc(docstring) + "\n"
    text = _lists(text)
    text = MATH_BLOCK.sub(_block, text)
    text = MATH.sub(lambda match: mathml(match.group(1)), text)
    text = ROLE.sub(lambda match: f"`{match.group(1)}`", text)
    text = EXAMPLE.sub("Examples:", text)
    text = REFERENCES.sub(lambda match: "**References:** " + _joined(match.group(1)) + "\n", text)
    text = LABEL.sub(r"**\1:** ", text)
    return text.replace("::\n", ":\n")


def mathml(latex: str, *, display: bool = False) -> str:
    """LaTeX as MathML that passes through Markdown untouched."""
    source = " ".join(latex.split())
    if display and ("&" in source or r"\\" in source):
        source = rf"\begin{{align*}} {source} \end{{align*}}"
    markup = convert(source, display="block" if display else "inline")
    for mark in "*_`":
        markup = markup.replace(mark, f"&#{ord(mark)};")
    return f'<span class="maths">{markup}</span>'


def _block(match: re.Match[str]) -> str:
    latex = textwrap.dedent(match.group("first") + "\n" + match.group("rest"))
    return f"\n{match.group('pad')}{mathml(latex, display=True)}\n\n"


def _joined(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines())


def _lists(text: str) -> str:
    """Indent the continuation of numbered items by four, as Markdown wants it."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        if ITEM.match(line):
            if inside and lines[-1]:
                lines.append("")
            inside = True
        elif line and not line.startswith(" "):
            inside = False
        elif inside and line:
            line = " " + line
        lines.append(line)
    return "\n".join(lines) + "\n"
