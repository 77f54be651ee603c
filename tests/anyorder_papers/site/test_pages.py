"""Finding a paper by its date, its abstract, and studies of works outside the catalogue."""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.testclient import TestClient

Open = Callable[..., TestClient]


def test_papers_stand_under_their_year_and_month(client: TestClient) -> None:
    html = client.get("/dates").text
    places = [html.index(f'id="{a}"') for a in ("2025-03", "2024-01", "2023-02", "undated")]
    assert places == sorted(places)
    march = html[places[0] : places[1]]
    assert "<h3>March</h3>" in march
    assert 'href="/paper/12"' in march
    assert ">16 Mar</time>" in march
    assert 'href="/paper/100"' in html[places[3] :]
    years = re.findall(r'<a href="#([\w-]+)">([\w ]+) <span class="number">(\d)', html)
    assert years == [
        ("2025", "2025", "1"),
        ("2024", "2024", "2"),
        ("2023", "2023", "1"),
        ("without-a-date", "Without a date", "1"),
    ]
    assert all(f'id="{anchor}"' in html for anchor, _, _ in years)


def test_the_list_by_date_is_in_the_navigation_and_behind_every_date(open_site: Open) -> None:
    client = open_site("https://example.org/p")
    assert 'href="/p/dates"' in client.get("/p/gallery").text
    assert '<a class="when" href="/p/dates#2025-03"><time' in client.get("/p/").text
    assert '<a class="when" href="/p/dates#2025-03"><time' in client.get("/p/paper/12").text


def test_a_paper_leads_to_the_papers_before_and_after_it(client: TestClient) -> None:
    def around(number: int) -> dict[str, str]:
        html = client.get(f"/paper/{number}").text
        return dict(re.findall(r'<a rel="(prev|next)"[^>]*href="/paper/(\d+)"', html))

    assert around(12) == {"next": "104"}
    assert around(104) == {"prev": "12", "next": "1001"}
    assert around(100) == {"prev": "71"}


def test_an_abstract_is_shown_where_there_is_one(client: TestClient) -> None:
    assert "Two forward passes; the weights stay" in client.get("/paper/12").text
    assert "Abstract</h2>" not in client.get("/paper/71").text


def test_studies_of_works_outside_the_catalogue_have_pages(client: TestClient) -> None:
    gallery = client.get("/gallery").text
    assert 'href="/study/malladi2023mezo"' in gallery
    assert 'All <span class="number">3</span>' in gallery
    page = client.get("/study/malladi2023mezo").text
    assert "https://arxiv.org/abs/2305.17333" in page
    assert "0.83 [0.79, 0.88]" in page
    assert "/figures/malladi2023mezo.svg" in page
    assert client.get("/study/chen2023lion").status_code == 404  # it has a paper
