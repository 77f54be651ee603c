"""Many processes, several hosts, one comparison: nothing is lost, and nothing is run twice."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from scale_out import Server, hosts, nursery

from anyorder.compare import session
from anyorder.compare.plan.settings import Settings
from anyorder.compare.progress import Silent
from anyorder.compare.run.pool import Pool
from anyorder.compare.session import Request
from anyorder.compare.store import results
from anyorder.compare.store import storage as storing
from anyorder.compare.store.storage import StorageError
from anyorder.testing.elsewhere import processes

SETTINGS = Settings(
    "quadratic", budget="20grads", tune=2, seeds=2, threads=1, evaluations=4, defaults=False,
    twin=False,
)  # fmt: skip


def compare(request: Request, progress: Silent | None = None) -> Any:
    """A comparison in this process, whose worker has PyTorch in memory already."""

    def forked(size: int, threads: int, log: str) -> Pool:
        pool = Pool(size, threads, log)
        pool._context = processes()
        return pool

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "Pool", forked)
        return session.compare(request, progress, report=lambda found, out: None)


def same(first: Any, second: Any) -> bool:
    return results.strip_times(first) == results.strip_times(second)


def started(*folders: Path) -> Counter[str]:
    """How often each run was started."""
    lines = [
        json.loads(line)
        for folder in folders
        for path in (folder / "runs").iterdir()
        for line in path.read_text().splitlines()
    ]
    return Counter(line["run"] for line in lines if "run" in line)


def trials(url: str) -> Counter[tuple[str, str]]:
    """How often each run is in each study of Optuna; a server has those of many comparisons."""
    url = url.replace("postgresql:", "postgresql+psycopg2:")
    return Counter(
        (study, trial.user_attrs["run"])
        for study in optuna.get_all_study_names(url)
        for trial in optuna.load_study(study_name=study, storage=url).trials
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The comparison as a single process runs it."""
    return compare(Request(SETTINGS, ("sgd", "adamw"), tmp_path_factory.mktemp("whole") / "out"))


class Stopping(Silent):
    """Stops the server when some runs are done, and keeps what is said."""

    def __init__(self, server: Server, runs: int) -> None:
        self.server, self.runs, self.lines = server, runs, list[str]()

    def say(self, lines: Any) -> None:
        self.lines += lines

    def finished(self, item: Any, record: Any) -> None:
        self.runs -= 1
        if self.runs == 0:
            self.server.stop()


@pytest.mark.slow
def test_without_the_server_it_stops_and_goes_on_later(
    server: Server, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(SETTINGS, ("sgd", "adamw"), tmp_path / "out", storage=server.url())
    monkeypatch.setattr(storing, "PATIENCE", 0.0)
    with pytest.raises(StorageError, match=r"could not be reached for 0 s: .*same command again"):
        compare(request, Stopping(server, 3))
    server.start()
    assert same(compare(request), whole)
    assert set(started(request.out).values()) == {1}
    assert set(trials(server.url()).values()) == {1}


@pytest.mark.slow
def test_it_waits_for_a_server_that_comes_back(server: Server, whole: Any, tmp_path: Path) -> None:
    request = Request(SETTINGS, ("sgd", "adamw"), tmp_path / "out", storage=server.url())

    class Restarting(Stopping):
        def say(self, lines: Any) -> None:
            super().say(lines)
            if any("is unreachable" in line for line in lines):
                server.start()

    progress = Restarting(server, 3)
    settings = replace(SETTINGS, budget="21grads")  # a comparison of its own on that server
    other = compare(replace(request, settings=settings), progress)
    assert [line for line in progress.lines if "reachable again" in line]
    assert set(started(request.out).values()) == {1}
    assert [method.failed for method in other.methods] == [None, None]


#: A problem that stands still in a certain run of a process, until its gate is opened or it dies.
STANDING = """
def loss(self, model, batch):
    import os, pathlib
    if "LINE_STOPS" in os.environ:
        runs, folder, gate = os.environ["LINE_STOPS"].split(":")
        texts = [path.read_text() for path in pathlib.Path(folder, "runs").iterdir()]
        if os.path.exists(gate) and sum('"end"' in text for text in texts) == int(runs):
            open(gate).read()
    return model(batch).square().mean()
"""


@pytest.mark.slow
def test_hosts_join_one_dies_and_the_server_restarts(
    server: Server, command: Any, problem_file: Callable[[str], str]
) -> None:
    """One host is lost with a run in its hands, the server with another one under way."""
    path = problem_file(STANDING)
    words = ["compare", path, *"--methods sgd,adamw --budget 20grads --tune 2 --seeds 2".split()]
    words += "--threads 1 --evaluations 4 --no-defaults --no-twin".split()
    with hosts(("one", "two", "three")) as (address, prefixes):
        server.stop()
        server.admit(f"{address}/24")
        server.start(f"127.0.0.1,{address}")

        def start(name: str, runs: int | None) -> Any:
            gate = command.folder / f"gate-{name}"
            os.mkfifo(gate)
            environment = {} if runs is None else {"LINE_STOPS": f"{runs}:{name}:{gate}"}
            options = ["--out", name, "--storage", server.url(address)]
            return command.start(*words, *options, before=prefixes[name], variables=environment)

        lost = start("one", 1)
        with (command.folder / "gate-one").open("w"):  # opens when that run stands still
            lost.kill()
        slow = start("two", 1)
        with (command.folder / "gate-two").open("w"):
            quick = start("three", None)
            said = []
            for line in quick.stdout:
                said.append(line)
                if line.startswith("["):
                    break
            server.stop()
            said.append(next(line for line in quick.stdout if "is unreachable" in line))
            server.start(f"127.0.0.1,{address}")
            (command.folder / "gate-two").unlink()
        ends = [process.communicate() for process in (slow, quick)]
        assert [slow.returncode, quick.returncode] == [0, 0], ends
        lost.communicate()
    folders = [command.folder / name for name in ("one", "two", "three")]
    counts = started(*folders)
    # Only the run that was lost with its host was started again.
    assert sorted(counts.values()) == [1, 1, 1, 1, 1, 1, 1, 2], (counts, said, ends)
    two, three = (results.load(folder / "results.json") for folder in folders[1:])
    assert {"two", "three"} <= set(two.environment.machines) <= {"one", "two", "three"}
    settings = replace(SETTINGS, problem=path)
    alone = compare(Request(settings, ("sgd", "adamw"), command.folder / "alone"))
    assert same(two, three) and same(two, alone)
    assert set(trials(server.url()).values()) == {1}


#: 200 take about half an hour; ANYORDER_KILLS=200 runs that many.
KILLS = int(os.environ.get("ANYORDER_KILLS", "20"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_many_times(tmp_path: Path) -> None:
    """At any SQL statement and any file: the results equal those of an uninterrupted process."""
    context, draw = processes(), random.Random(0)
    ours, theirs = context.Pipe()
    forking = context.Process(target=nursery, args=(theirs,))
    forking.start()
    theirs.close()

    def run(events: int, request: Request) -> int | None:
        """Events until its end; None if it was killed."""
        ours.send((events, request))
        status, ended = ours.recv()
        assert status == (-9 if ended is None else 0)
        return ended

    def request(name: str) -> Request:
        return Request(SETTINGS, ("sgd", "adamw"), tmp_path / name)

    total = run(10**9, request("whole"))
    assert total is not None
    whole = results.load(tmp_path / "whole" / "results.json")
    killed = comparisons = 0
    while killed < KILLS:
        comparisons += 1
        one = request(str(comparisons))
        while run(draw.randrange(1, total), one) is None:
            killed += 1
        assert same(results.load(one.out / "results.json"), whole)
        assert trials(f"sqlite:///{one.out / 'compare.db'}") == trials(
            f"sqlite:///{tmp_path / 'whole' / 'compare.db'}"
        )
    ours.send(None)
    forking.join()
    ours.close()
