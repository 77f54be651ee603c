"""``optuna-dashboard`` on the storage of a comparison: its own server, asked over HTTP."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from example_results import run
from scale_out import Server

from anyorder.compare.plan.items import Item, items
from anyorder.compare.plan.plan import Plan
from anyorder.compare.plan.space import Dimension
from anyorder.compare.store.mirror import Mirror
from anyorder.compare.store.schema import Outcome
from anyorder.compare.store.storage import Storage, embedded_url

pytestmark = pytest.mark.filterwarnings("default")  # those of the dashboard's libraries


class Quiet(WSGIRequestHandler):
    """Writes no log."""

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def dashboard(url: str) -> Iterator[Callable[[str], Any]]:
    """The dashboard of a storage; yields a function that requests a path of its API."""
    optuna_dashboard = pytest.importorskip("optuna_dashboard", reason="needs optuna-dashboard")
    with make_server("127.0.0.1", 0, optuna_dashboard.wsgi(url), handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def request(path: str) -> Any:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{path}") as answer:
                return json.load(answer)

        try:
            yield request
        finally:
            server.shutdown()
            thread.join()


def fill(url: str, plan: Plan) -> None:
    """A comparison with two finished tuning runs and a reported one."""
    storage = Storage(url)
    storage.begin(plan)
    storage.add([(item, None) for item in items(plan)])
    space = {"a": (Dimension("lr", "log", 0.1, 1e-3, 1.0),), "b": ()}
    for item in (Item.trial("a", 0, 0), Item.trial("a", 0, 1), Item.report("b", 0, 0)):
        storage.claim(item)
        storage.finish(item, Outcome({"lr": 0.1}, {"lr": 0.1}, run(item.seed, [0.25]), "m"))
    Mirror(storage, "problem", "min", space).finish()
    storage.close()


def check(url: str) -> None:
    with dashboard(url) as request:
        studies = request("/api/studies")["study_summaries"]
        names = {each["study_name"]: each["study_id"] for each in studies}
        assert set(names) == {"problem a tune", "problem b report"}
        study = request(f"/api/studies/{names['problem a tune']}?after=0")
        assert [trial["values"] for trial in study["trials"]] == [[run(0, [0.25]).final.metric]] * 2
        assert study["trials"][0]["params"][0]["name"] == "lr"


def test_it_shows_a_file(tmp_path: Path, small_plan: Plan) -> None:
    url = embedded_url(tmp_path)
    fill(url, small_plan)
    check(url)


@pytest.mark.slow
def test_it_shows_a_server(server: Server, small_plan: Plan) -> None:
    fill(server.url(), small_plan)
    check(server.url().replace("postgresql:", "postgresql+psycopg2:"))
