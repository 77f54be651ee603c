"""A small site with everything on it: results of each kind, hostile texts, missing dates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from anyorder_papers.catalogue import Paper, Work
from anyorder_papers.database import Database
from anyorder_papers.search import search
from anyorder_papers.site.app import create_app
from anyorder_papers.site.entries import ClaimRow, Library, StudyView, library
from anyorder_papers.site.settings import Settings

if TYPE_CHECKING:
    from conftest import Sink

HOSTILE = "</title><script>alert('x')</script><img src=x onerror=alert(1)> \"'`{{ 7*7 }} & co"
ABSTRACT = "Two forward passes; the weights stay with the processor."
SECRET = b"s" * 32
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 60 34">'
    '<style>path{stroke:green}</style><path d="M1 1 59 33" fill="none"/></svg>'
)


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., StudyView]:
    figure = tmp_path / "figure.svg"
    figure.write_text(SVG, encoding="utf-8")
    rows = (
        ClaimRow("The loss is lower.", "0.8 (effect: < 1)", "0.83 [0.79, 0.88]", "met", "table 2"),
        ClaimRow("Half the memory.", "0.5", "0.5 (exact)", "met", "abstract"),
    )
    base = StudyView(
        key="chen2023lion",
        paper=71,
        title="Lion against AdamW",
        verdict="reproduced",
        seconds=12.3,
        scale="small",
        command="anyorder study run chen2023lion --scale small",
        claims=rows,
        figure=figure,
        need="one GPU for two hours",
    )

    def make(**changes: object) -> StudyView:
        return replace(base, **changes)  # type: ignore[arg-type]

    return make


@pytest.fixture
def small_library(
    make_paper: Callable[..., Paper], make_study: Callable[..., StudyView]
) -> Library:
    papers = [
        make_paper(
            71,
            title="Symbolic discovery of optimisers",
            description="Finds Lion, which steps by a sign.",
            arxiv="2302.06675",
            module="anyorder_papers.site.maths",
            study="chen2023lion",
            state="works",
            date=date(2023, 2, 13),
        ),
        make_paper(
            12,
            title="Tuning with little memory",
            topic="zeroth",
            order="0",
            study="wang2025zo2",
            date=date(2025, 3, 16),
        ),
        make_paper(
            104, title="A review", topic="language", order="none", state="no system", kind="review"
        ),
        make_paper(100, title="Sets in order", topic="structure", order="none", date=None),
        make_paper(
            1001,
            title=HOSTILE,
            description=HOSTILE,
            topic="unsorted",
            order="none",
            state="new",
            arxiv="2401.00001",
            authors=None,
        ),
    ]
    refuted = make_study(
        key="vinyals2015sets", paper=100, title="Order in sets", verdict="refuted", figure=None
    )
    background = make_study(
        key="malladi2023mezo",
        paper=None,
        title="Forward passes only",
        work=Work("Forward passes", "2305.17333"),
    )
    return library(papers, [make_study(), refuted, background], {12: ABSTRACT, 1001: HOSTILE})


@dataclass
class Clock:
    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_site(
    small_library: Library, database: Database, clock: Clock, sink: Sink
) -> Iterator[Callable[..., TestClient]]:
    opened: list[TestClient] = []

    def make(
        base_url: str = "http://testserver", *, mail: bool = True, address: str = "testclient"
    ) -> TestClient:
        settings = Settings(base_url, SECRET, sink.settings if mail else None)
        app = create_app(small_library, database, settings, search, clock)
        client = TestClient(
            app,
            base_url=base_url.removesuffix("/p"),
            raise_server_exceptions=False,
            follow_redirects=False,
            client=(address, 50_000),
        )
        opened.append(client.__enter__())
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def client(open_site: Callable[..., TestClient]) -> TestClient:
    return open_site()
