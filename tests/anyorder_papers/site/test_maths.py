"""Formulas in documentation, as MathML that cannot be anything else."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyorder_papers.site.maths import ELEMENTS, formulas, read_formulas, to_mathml


def test_a_directive_on_one_line_or_many() -> None:
    text = r"""First line.

    .. math:: a = b

    Words.

    .. math::
        c &= d \\
        e &= f

    More words.
    """
    found = read_formulas(text)
    assert [formula.source for formula in found] == ["a = b", "c &= d \\\\\ne &= f"]
    assert all(formula.mathml is not None for formula in found)
    assert str(found[1].mathml).count("<mtr>") == 2


def test_dollars_too_and_in_the_order_of_the_text() -> None:
    found = read_formulas("One.\n\n.. math:: a\n\nThen $$\nb\n$$ and\n\n.. math:: c\n")
    assert [formula.source for formula in found] == ["a", "b", "c"]


def test_a_literal_block_is_plain_text_but_an_example_is_none() -> None:
    found = read_formulas(
        "The update::\n\n    m = b m\n    x = x - m\n\nExample::\n\n    >>> 1\n    1\n"
    )
    assert [(formula.source, formula.mathml) for formula in found] == [("m = b m\nx = x - m", None)]


def test_maths_comes_before_literal_blocks() -> None:
    found = read_formulas("Code::\n\n    x = 1\n\n.. math:: a\n")
    assert [formula.source for formula in found] == ["a"]


@pytest.mark.parametrize(
    "latex",
    [
        r"\href{javascript:alert(1)}{x}",
        r"\text{</mtext><script>alert(1)</script>}",
        r"\frac{1}",
        r"\class{x}{y}\style{color:red}{z}",
        r"\includegraphics{http://example.org/x.png}",
    ],
)
def test_what_is_more_than_maths_or_wrong_never_becomes_markup(latex: str) -> None:
    made = to_mathml(latex)
    if made is not None:
        names = {element.tag for element in ET.fromstring(made).iter()}
        assert names <= ELEMENTS
        assert "href" not in made.replace("\\href", "")


def test_a_link_and_an_unknown_element_are_shown_as_source() -> None:
    assert to_mathml(r"\href{javascript:alert(1)}{x}") is None
    assert read_formulas(r".. math:: \href{javascript:alert(1)}{x}")[0].mathml is None


@given(st.text(alphabet=st.sampled_from("\\{}<>&^_abz1\"'=$% ") | st.characters()))
def test_any_text_gives_known_elements_only(latex: str) -> None:
    made = to_mathml(latex)
    if made is not None:
        assert {element.tag for element in ET.fromstring(made).iter()} <= ELEMENTS


def test_modules_are_read_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "unseen_package"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / "inner" / "__init__.py").write_text('"""X.\n\n.. math:: p\n"""\n')
    (package / "inner" / "method.py").write_text(
        '"""M.\n\n.. math:: a\n"""\nclass One:\n    r"""C.\n\n    .. math:: b\n    """\n'
        'class _Hidden:\n    """H.\n\n    .. math:: c\n    """\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [f.source for f in formulas("unseen_package.inner.method")] == ["a", "b"]
    assert [f.source for f in formulas("unseen_package.inner")] == ["p"]
    assert "unseen_package" not in sys.modules


def test_what_is_not_there_has_no_maths() -> None:
    assert formulas("no_such_package.method") == ()
    assert formulas("anyorder_papers.no_such_module") == ()
    assert formulas("anyorder_papers...") == ()
    assert formulas("../../etc/passwd") == ()
