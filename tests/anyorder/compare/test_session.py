"""Whole comparisons, small ones: what they leave behind, how they go on, what they refuse."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import optuna
import pytest

import anyorder
from anyorder.compare import session
from anyorder.compare.plan.entrants import EntrantError
from anyorder.compare.plan.plan import PlanError
from anyorder.compare.plan.settings import Settings, SettingsError
from anyorder.compare.progress import Silent
from anyorder.compare.run.pool import Pool
from anyorder.compare.session import Request, compare
from anyorder.compare.store import results
from anyorder.compare.store.storage import StorageError
from anyorder.extras import MissingExtraError
from anyorder.problems import ProblemError
from anyorder.testing.elsewhere import processes

METHODS = ("sgd", "mezo", "torch.optim:LBFGS")


class Lasting(Pool):
    """A pool whose workers outlive the comparison: starting one takes seconds."""

    def __exit__(self, *_: object) -> None:
        assert self.idle == self.size


@pytest.fixture(scope="module", autouse=True)
def _one_pool() -> Iterator[None]:
    """One worker for all comparisons of this module, forked with PyTorch in memory."""
    pool = Lasting(1, 1, os.devnull)
    pool._context = processes()

    def same_pool(size: int, threads: int, log: str) -> Pool:
        assert (size, threads) == (1, 1)
        return pool

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "Pool", same_pool)
        yield
    pool.close()


class Told(Silent):
    """Counts the runs that were done here, and keeps what was said."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.lines: list[str] = []

    def say(self, lines: Any) -> None:
        self.lines += lines

    def started(self, item: Any) -> None:
        self.runs.append(item.key)


def changed(request: Request, **changes: Any) -> Request:
    """The request with other settings or methods, or another folder."""
    own = {each.name for each in fields(Request)}
    settings = {name: value for name, value in changes.items() if name not in own}
    changes = {name: value for name, value in changes.items() if name in own}
    return replace(request, settings=replace(request.settings, **settings), **changes)


def again(request: Request, **changes: Any) -> tuple[Any, Told]:
    told = Told()
    found = compare(changed(request, **changes), told, report=lambda found, out: None)
    return found, told


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Request, Any, Told]:
    """One comparison for all tests that only look at what it left."""
    out = tmp_path_factory.mktemp("session") / "out"
    settings = Settings(
        "digits", budget="12grads", tune=2, seeds=2, threads=1, evaluations=4, twin=False
    )
    request = Request(settings, METHODS, out)
    return (request, *again(request))


def test_results_are_written_as_they_are_returned(finished: Any) -> None:
    request, found, _ = finished
    assert results.load(request.out / "results.json") == found
    assert [method.name for method in found.methods] == list(METHODS)
    for method in found.methods:
        assert [len(tuning.trials) for tuning in method.tunings] == [2]
        assert [run.seed for run in method.runs] == [0, 1]
        assert method.failed is None
    assert found.budget == {"forwards": 36.0}


def test_methods_start_alike_and_seeds_do_not(finished: Any) -> None:
    _, found, _ = finished
    by_seed = [{m.runs[seed].start_hash for m in found.methods} for seed in (0, 1)]
    assert [len(hashes) for hashes in by_seed] == [1, 1]
    assert by_seed[0] != by_seed[1]


def test_default_runs_are_those_of_trial_0(finished: Any) -> None:
    _, found, told = finished
    for method in found.methods:
        assert len(method.default_runs) == 2
        (tuning,) = method.tunings
        assert method.default_runs[0].config == tuning.trials[0].config
        if tuning.chosen == 0:
            assert method.default_runs == method.runs
            assert f"default/{method.name}/0/0" not in told.runs


def test_what_was_said_before_the_start(finished: Any) -> None:
    text = "\n".join(finished[2].lines)
    assert "torch.optim:LBFGS: torch.optim.lbfgs.LBFGS torch " in text
    assert "digits: 17,226 parameters" in text
    assert "each run: 36 forwards; learning rate cosine" in text


def test_optuna_sees_the_runs(finished: Any) -> None:
    request, found, _ = finished
    url = f"sqlite:///{request.out / 'compare.db'}"
    counts = {
        s.study_name.split(" ", 3)[3]: s.n_trials for s in optuna.get_all_study_summaries(url)
    }
    assert counts["sgd tune"] == counts["mezo tune"] == counts["sgd report"] == 2
    assert found.fingerprint.startswith(
        optuna.get_all_study_summaries(url)[0].study_name.split(" ")[2]
    )


def test_the_command_repeats_it(finished: Any) -> None:
    _, found, _ = finished
    words = found.command.split()
    assert words[:5] == ["anyorder", "compare", "digits", "--methods", ",".join(METHODS)]
    for part in ("--budget 12grads", "--tune 2", "--seeds 2", "--no-twin", "--threads 1"):
        assert part in found.command


def test_the_same_again_runs_nothing(finished: Any) -> None:
    request, found, _ = finished
    repeated, told = again(request)
    assert told.runs == []
    assert results.strip_times(repeated) == results.strip_times(found)


def test_more_only_if_asked_and_then_only_more(finished: Any) -> None:
    request, found, _ = finished
    with pytest.raises(PlanError, match="3 seeds instead of 2.*--extend"):
        again(request, seeds=3)
    more, told = again(request, seeds=3, methods=("sgd", "lion"), defaults=False, extend=True)
    assert [method.name for method in more.methods] == [*METHODS, "lion"]
    assert not [
        key for key in told.runs if key in ("report/sgd/0/0", "tune/sgd/0/0", "report/mezo/0/1")
    ]
    assert "report/sgd/0/2" in told.runs
    assert more.methods[0].runs[:2] == found.methods[0].runs


def test_another_plan_in_the_folder_is_refused(finished: Any) -> None:
    request, *_ = finished
    with pytest.raises(PlanError, match=r"budget: '12grads' there, '13grads' now.*--out"):
        again(request, budget="13grads")
    os.rename(request.out / "compare.db", request.out / "moved.db")
    with pytest.raises(PlanError, match="budget"):
        again(request, budget="13grads")
    os.rename(request.out / "moved.db", request.out / "compare.db")


def test_a_failing_method_does_not_stop_the_others(
    tiny: Callable[..., Any], method_file: Callable[..., str]
) -> None:
    raising = method_file("if self.count > 3: raise ArithmeticError('no more')\nreturn closure()")
    dying = method_file("if self.count > 3: os._exit(3)\nreturn closure()", "dying.py")
    found = tiny("quadratic", "sgd", f"raising={raising}", f"dying={dying}", seeds=1, tune=0)
    sgd, failed, dead = found.methods
    assert sgd.failed is None
    assert failed.failed.startswith("all 1 runs failed: ArithmeticError at ")
    assert len(failed.runs[0].curve) >= 1
    assert "exited with code 3, in each of 2 attempts" in dead.failed
    assert dead.runs[0].stop_reason == "crashed"


def test_runs_above_the_memory_limit_are_no_results(tiny: Callable[..., Any]) -> None:
    found = tiny("quadratic", "sgd", memory="1MB")
    (method,) = found.methods
    assert {run.stop_reason for run in method.runs} == {"memory"}
    assert {trial.status for trial in method.tunings[0].trials} == {"failed"}
    assert method.failed is not None
    assert method.failed.startswith("all 2 runs failed: its peak memory of ")
    assert "--memory 1MB" in found.command
    assert found.plan.settings.memory == "1MB"


def test_other_libraries_take_part_and_repeat(tiny: Callable[..., Any], tmp_path: Path) -> None:
    methods = ("scipy:L-BFGS-B", "optuna:RandomSampler")
    first = tiny("quadratic", *methods, seeds=1)
    (tmp_path / "out").rename(tmp_path / "first")
    again = tiny("quadratic", *methods, seeds=1)
    for one, other in zip(first.methods, again.methods, strict=True):
        assert one.failed is None
        numbers = [
            [(run.start_hash, run.final, [(p.calls, p.metric) for p in run.curve]) for run in runs]
            for runs in (one.runs, other.runs)
        ]
        assert numbers[0] == numbers[1]
    lbfgs = first.methods[0]
    assert all(run.curve[-1].calls.grads <= 20 for run in lbfgs.runs)
    assert all(run.final.loss < run.curve[0].val_loss / 100 for run in lbfgs.runs)


def test_a_converged_run_says_so(tiny: Callable[..., Any]) -> None:
    found = tiny("quadratic", "scipy:L-BFGS-B", tune=1, seeds=1, budget="400grads")
    (run,) = found.methods[0].runs
    assert (run.status, run.stop_reason) == ("done", "converged")
    assert run.curve[-1].calls.grads < 400
    assert run.final.loss < 1e-6


def test_a_method_that_is_too_large_does_not_stop_the_others(tiny: Callable[..., Any]) -> None:
    found = tiny("digits", "sgd", "scipy:BFGS", "scipy:CG", tune=1, seeds=1, budget="6grads")
    reasons = [each.failed for each in found.methods]
    assert reasons[0] is None and reasons[2] is None
    assert reasons[1] is not None and "parameters are too many" in reasons[1]
    assert found.methods[1].runs == []


def test_a_problem_with_a_judge_answers_with_rankings_only(
    tiny: Callable[..., Any], problem_file: Callable[..., str], tmp_path: Path
) -> None:
    judge = """
    def judge(self, losses, *, seed, step, question):
        assert question == (0 if len(losses) == 10 else 1)
        return losses.argsort().tolist()
    """
    worst = judge.replace("argsort()", "argsort(descending=True)")
    good = tiny(problem_file(judge), "adamw", "rank_sgd", tune=1, budget="500forwards")
    assert good.baseline == "rank_sgd"
    refused, ranked = good.methods
    assert refused.failed is not None and "rankings only" in refused.failed
    assert {run.curve[-1].calls.values for run in ranked.runs} == {0}
    assert all(run.curve[-1].calls.rankings > 50 for run in ranked.runs)
    assert all(run.final.loss < run.curve[0].val_loss for run in ranked.runs)
    with pytest.raises(EntrantError, match="rankings only"):
        tiny(problem_file(judge), "adamw", "mezo", budget="20forwards")
    (tmp_path / "out").rename(tmp_path / "good")
    bad = tiny(problem_file(worst, "worst.py"), "rank_sgd", tune=1, seeds=1, budget="100forwards")
    (run,) = bad.methods[0].runs
    assert run.final.loss is None or run.final.loss > run.curve[0].val_loss


def test_the_same_method_is_not_better_than_itself(tiny: Callable[..., Any]) -> None:
    """The foreign copy of a method gets its space, its trials and so its configuration."""
    own, other, broken, twin = tiny(
        "quadratic", "adamw", "torch.optim:AdamW", "no_such_package:X", tune=4, tunings=2, seeds=1,
        twin=True,
    ).methods  # fmt: skip
    for one, same in zip(own.tunings, other.tunings, strict=True):
        assert [trial.config for trial in one.trials] == [trial.config for trial in same.trials]
        assert one.chosen == same.chosen
        assert [d.ends for d in one.space] == [d.ends for d in same.space]
    assert [d.source for d in other.tunings[0].space] == ["as adamw", "as adamw"]
    for run, same in zip(own.runs, other.runs, strict=True):
        assert same.final.loss == pytest.approx(run.final.loss, rel=1e-9)
    assert "cannot import 'no_such_package'" in broken.failed
    assert (twin.name, twin.twin_of) == ("adamw (A/A)", "adamw")
    assert {run.seed for run in twin.runs}.isdisjoint(run.seed for run in own.runs)
    drawn = [[t.config for t in each.trials[1:]] for m in (own, twin) for each in m.tunings]
    assert len({str(config) for configs in drawn for config in configs}) == 12


def test_tunings_can_be_added(tiny: Callable[..., Any], tmp_path: Path) -> None:
    tiny("quadratic", "sgd")
    settings = Settings(
        "quadratic", budget="20grads", tune=2, seeds=3, threads=1, evaluations=5, tunings=2,
        jobs=1, twin=False, defaults=False, timeout="1h",
    )  # fmt: skip
    request = Request(settings, ("sgd",), tmp_path / "out")
    with pytest.raises(PlanError, match="3 seeds instead of 2, 2 tunings instead of 1"):
        again(request)
    more, told = again(request, extend=True)
    assert sorted(told.runs) == [
        "report/sgd/0/2", "report/sgd/1/10000", "report/sgd/1/10001", "report/sgd/1/10002",
        "tune/sgd/1/0", "tune/sgd/1/1",
    ]  # fmt: skip
    assert (more.plan.looks, more.plan.settings.timeout) == (2, "1h")
    whole, _ = again(request, out=tmp_path / "whole")
    whole.plan = replace(whole.plan, looks=2)
    whole.plan = replace(whole.plan, settings=more.plan.settings)
    assert same(more, whole)


def test_an_edge_trial_extends_the_space(tiny: Callable[..., Any]) -> None:
    """On a quadratic, AdamW's best learning rate lies above its range."""
    (adamw,) = tiny("quadratic", "adamw", tune=8, seeds=1).methods
    (tuning,) = adamw.tunings
    assert tuning.space[0].extended
    assert tuning.space[0].high >= 1.0
    assert max(trial.config["lr"] for trial in tuning.trials) == tuning.space[0].high


@pytest.mark.parametrize("name", ["a%41 b", "a?b", "a#b", "a\nb"])
def test_odd_paths_are_paths(
    name: str, tiny: Callable[..., Any], problem_file: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / "aA b").mkdir()  # what a%41 b would be in an address
    path = Path(problem_file())
    path.rename(tmp_path / name / f"{name}.py")
    settings = Settings(
        str(tmp_path / name / f"{name}.py"), budget="5grads", tune=0, seeds=1, threads=1,
        evaluations=1, twin=False, defaults=False,
    )  # fmt: skip
    method = tmp_path / name / "mine.py"
    method.write_text("import torch\nclass Mine(torch.optim.SGD): pass\n")
    request = Request(settings, (f"{method}:Mine",), tmp_path / name / "out")
    found, told = again(request)
    assert found.plan.source
    assert len(told.runs) == 1
    assert {each.name for each in request.out.iterdir()} >= {"compare.db", "runs", "results.json"}
    (file,) = (request.out / "runs").iterdir()
    assert file.read_text().startswith("{")
    assert again(request)[1].runs == []
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted({name, "aA b"})


def test_a_second_comparison_in_the_folder_joins_or_is_refused(
    problem_file: Callable[[str], str], tmp_path: Path
) -> None:
    """The second one starts when the first has stored its plan but done no run."""
    settings = Settings(
        problem_file(""), budget="5grads", tune=0, seeds=1, threads=1, evaluations=1, twin=False,
        defaults=False,
    )  # fmt: skip
    request = Request(settings, ("sgd",), tmp_path / "out")
    joined: list[Any] = []

    class Meanwhile(Told):
        def say(self, lines: Any) -> None:
            if joined:
                return
            with pytest.raises(PlanError, match=r"budget: '5grads' there, '6grads' now.*--out"):
                again(request, budget="6grads")
            with pytest.raises(PlanError, match=r"does not include method lion"):
                again(request, methods=("lion",))
            joined.append(again(request))

    told = Meanwhile()
    found = compare(request, told, report=lambda found, out: None)
    ((other, others),) = joined
    assert (told.runs, others.runs) == ([], ["report/sgd/0/0"])
    assert same(found, other)


def test_threads_find_all_engines_imported() -> None:
    """Optuna imports its storage late; two threads that did so at once ended a comparison."""
    script = """
import sys, threading
from anyorder.compare import session
from anyorder.compare.store.storage import Storage
session._load_engines()
import optuna
storage = Storage("sqlite://")
before = set(sys.modules)
def use():
    optuna.create_study(storage=optuna.storages.RDBStorage("sqlite://"), study_name="x")
thread = threading.Thread(target=use)
thread.start(); thread.join()
engines = ("optuna", "sqlalchemy", "alembic")
print([name for name in set(sys.modules) - before if name.startswith(engines)])
"""
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(anyorder.__file__).parents[1])},
    )  # fmt: skip
    assert found.stdout.strip() == "[]", found.stderr


def test_a_problem_that_is_refused_costs_nothing(
    tiny: Callable[..., Any], problem_file: Callable[[str], str], tmp_path: Path
) -> None:
    path = problem_file("def loss(self, model, batch): return model(batch).mean() * float('nan')")
    with pytest.raises(ProblemError, match="loss: is nan at the initial point"):
        tiny(path)
    assert list((tmp_path / "out" / "runs").iterdir()) == []
    with pytest.raises(ProblemError, match="unknown problem 'digit'; did you mean 'digits'"):
        tiny("digit")


def test_what_is_wrong_is_refused_before_any_work(tmp_path: Path) -> None:
    def attempt(**changes: Any) -> None:
        compare(changed(Request(Settings("digits"), ("sgd",), tmp_path / "out"), **changes))

    for changes, error, says in (
        ({"methods": ("sdg",)}, ValueError, "Did you mean 'sgd'"),
        ({"sets": ("sgd.lr=-1",)}, ValueError, "lr: expected a value >= 0"),
        ({"methods": ()}, EntrantError, "at least one method"),
        ({"budget": "soon"}, SettingsError, "cannot read the budget 'soon'"),
        ({"device": "cuda:77"}, PlanError, "device 'cuda:77' cannot be used"),
        ({"device": "toaster"}, PlanError, "device 'toaster' cannot be used"),
    ):
        with pytest.raises(error, match=says):
            attempt(**changes)
    assert not (tmp_path / "out").exists()


def test_a_missing_library_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'anyorder\[compare\]'"):
        compare(Request(Settings("digits"), ("sgd",), tmp_path))


def test_a_folder_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write into .*file/out: .*--out"):
        compare(Request(Settings("digits"), ("sgd",), tmp_path / "file" / "out"))
    monkeypatch.setattr(session, "ROOM", 2**60)
    with pytest.raises(StorageError, match=r"MiB left, .* Free disk space"):
        compare(Request(Settings("digits"), ("sgd",), tmp_path / "out"))


def test_results_of_another_version_are_refused(tiny: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    plan: dict[str, Any] = {"of": "another form", "versions": {"anyorder": "0.0.1"}}
    (tmp_path / "out" / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(StorageError, match=r"contains results of anyorder 0\.0\.1"):
        tiny()
    for text in ("{", json.dumps({"versions": {"anyorder": anyorder.__version__}, "x": 1})):
        (tmp_path / "out" / "plan.json").write_text(text)
        with pytest.raises(StorageError, match=r"plan\.json is damaged"):
            tiny()


def test_measured_rates_price_the_budget(tiny: Callable[..., Any]) -> None:
    found = tiny("quadratic", "sgd", rates="measured", tune=0, seeds=1)
    assert found.budget["forwards"] == pytest.approx(20 * found.rates.measured["grads"])
    assert found.methods[0].runs[0].curve[-1].calls.grads == 20


WORDS = [
    "compare", "quadratic", "--methods", "sgd,adamw", "--budget", "200grads", "--tune", "2",
    "--seeds", "2", "--threads", "1", "--no-twin", "--no-defaults",
]  # fmt: skip


#: The same as above, for this process, which has PyTorch in memory already.
REQUEST = Request(
    Settings(
        "quadratic", budget="200grads", tune=2, seeds=2, threads=1, twin=False, defaults=False
    ),
    ("sgd", "adamw"),
    Path(),
)


def same(first: Any, second: Any) -> bool:
    return results.strip_times(first) == results.strip_times(second)


#: A problem that stands still in the third run of a process that is to be killed there.
STOPPING = """
def loss(self, model, batch):
    import os, pathlib
    if "LINE_STOPS" in os.environ:
        runs = [path.read_text() for path in pathlib.Path("shared/runs").iterdir()]
        if sum('"end"' in text for text in runs) == 2:
            open(os.environ["LINE_STOPS"]).read()
    return model(batch).square().mean()
"""


class Killing(Told):
    """Kills another process as soon as a first run is finished here."""

    def __init__(self, other: subprocess.Popen[str]) -> None:
        super().__init__()
        self.other, self.done = other, 0

    def finished(self, item: Any, record: Any) -> None:
        self.done += 1
        self.other.kill()


def test_two_at_once_of_which_one_is_killed_equal_one_uninterrupted(
    command: Any, problem_file: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, gate = problem_file(STOPPING), command.folder / "gate"
    os.mkfifo(gate)
    with monkeypatch.context() as patch:
        patch.setenv("LINE_STOPS", str(gate))
        killed = command.start("compare", path, *WORDS[2:], "--out", "shared")
    request = replace(REQUEST, settings=replace(REQUEST.settings, problem=path))
    with gate.open("w"):  # opens as soon as the other end is opened for reading
        here = Killing(killed)
        shared = replace(request, out=command.folder / "shared")
        compare(shared, here, report=lambda found, out: None)
        done = [line for line in killed.communicate()[0].splitlines() if line.startswith("[")]
    assert (len(done), here.done) == (2, 6)
    found = results.load(command.folder / "shared" / "results.json")
    assert same(found, again(request, out=command.folder / "whole")[0])
    url = f"sqlite:///{command.folder / 'shared' / 'compare.db'}"
    assert sum(s.n_trials for s in optuna.get_all_study_summaries(url)) == 8


@pytest.mark.slow
def test_killed_many_times_at_any_moment(command: Any) -> None:
    """Nothing lost, nothing doubled, at the start, between runs and in the middle of them."""
    draw = random.Random(0)
    for _ in range(20):
        runs, seconds = draw.randrange(3), draw.uniform(0.0, 1.5) if draw.random() < 0.7 else 4.0
        if command.kill_after(runs, seconds, *WORDS, "--out", "killed"):
            break
    found, _ = again(REQUEST, out=command.folder / "killed")
    assert same(found, again(REQUEST, out=command.folder / "whole")[0])
    url = f"sqlite:///{command.folder / 'killed' / 'compare.db'}"
    assert sum(s.n_trials for s in optuna.get_all_study_summaries(url)) == 8


@pytest.mark.slow
def test_machines_join_through_a_server(command: Any, postgres: str) -> None:
    """Two folders, one database: the work is shared and both end with all results."""
    words = [*WORDS, "--storage", postgres]
    processes = [command.start(*words, "--out", name) for name in ("one", "two")]
    said = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    done = [line for out, _ in said for line in out.splitlines() if line.startswith("[")]
    assert len(done) == 8
    one, two = (results.load(command.folder / name / "results.json") for name in ("one", "two"))
    assert same(one, two)
