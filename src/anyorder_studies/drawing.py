"""Figures of studies, in one style; equal data give equal files."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from anyorder_studies.study import Measurement, Results, Study

# All text and axes use this colour; the SVG file replaces it by the reader's text colour.
INK = "#16181d"
PALETTE = ("#2f7fd0", "#e0782f", "#2a9d6f", "#c4568f", "#8f7bd8", "#b99a1e", "#7d8794")

STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.facecolor": "none",
    "figure.figsize": (6.0, 3.4),
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.alpha": 0.25,
    "grid.color": "#8a8f98",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelsize": 8,
    "ytick.color": INK,
    "ytick.labelsize": 8,
}

SCHEMES = (
    "<style>svg{color:#16181d}"
    "@media (prefers-color-scheme:dark){svg{color:#e4e7ec}}"
    "text{fill:currentColor;font-family:'DejaVu Sans',Verdana,sans-serif}</style>"
)


def draw(study: Study, results: Results, measurements: dict[str, Measurement], path: Path) -> None:
    """Write the study's figure as SVG that adapts to light and dark colour schemes.

    The same results give the same bytes: identifiers are derived from the study's key, and the file
    contains no date.
    """
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    style: dict[Any, Any] = {
        **STYLE,
        "svg.hashsalt": study.key,
        "axes.prop_cycle": cycler(color=PALETTE),
    }
    with mpl.rc_context(style):  # pyright: ignore[reportUnknownMemberType]
        figure = study.figure(results, measurements)
        FigureCanvasAgg(figure)
        buffer = io.StringIO()
        dateless = {"Date": None, "Creator": None}
        figure.savefig(buffer, format="svg", metadata=dateless)  # pyright: ignore[reportUnknownMemberType]
    path.write_text(follow_scheme(buffer.getvalue()), encoding="utf-8")


def follow_scheme(svg: str) -> str:
    """Replace the ink color by ``currentColor`` and remove elements that only printers need."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = body.replace(INK, "currentColor")
    end = body.index(">") + 1
    return f"{body[:end]}\n {SCHEMES}{body[end:]}"
