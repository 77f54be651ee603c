"""Sessions: the open question, answers that are stored, undone, refused, replayed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from anyorder.hyper import HyperError
from anyorder.judging.media import Media
from anyorder.judging.session import Session, SessionError, StaleError
from anyorder.judging.task import Task
from anyorder.methods.rank_sgd import RankSGD
from anyorder.oracle.closures import RankingError

START = {"x": 1.0, "y": [2.0, -1.0]}


def render(given: dict[str, Any]) -> dict[str, float]:
    return {"x": given["x"], "y": given["y"][0], "z": given["y"][1]}


def heights(media: list[Media]) -> list[float]:
    return [sum(float(value) ** 2 for _, value in each.rows) for each in media]


def answered(session: Session, times: int = 1) -> None:
    """Somebody answers who likes small numbers."""
    for _ in range(times):
        question, media = session.candidates()
        found = heights(media)
        order = sorted(range(len(media)), key=found.__getitem__)
        session.answer(question.token, order[:1] if question.part == "choose" else order)


@pytest.fixture
def begin(tmp_path: Path) -> Any:
    opened: list[Session] = []

    def make(**options: Any) -> Session:
        task = Task("small", options.pop("parameters", START), render)
        opened.append(Session(tmp_path / "session", task, options))
        return opened[-1]

    yield make
    for session in opened:
        session.close()


Begin = Callable[..., Session]


def test_answers_are_those_of_the_method(begin: Begin) -> None:
    session = begin(seed=3, points=5, lr=0.5)
    x = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    y = torch.nn.Parameter(torch.tensor([2.0, -1.0], dtype=torch.float64))
    plain = RankSGD(
        [("x", x), ("y", y)], points=5, line_search=2, lr=0.5, seed=3, adapt=True, engine="eager"
    )
    for _ in range(10):
        answered(session)
    for _ in range(5):
        plain.step(lambda: x**2 + (y**2).sum())
    best = json.loads((session.folder / "best.json").read_text())
    assert best == {"parameters": {"x": x.item(), "y": y.tolist()}, "answers": 10, "steps": 5}
    assert heights([session.best()])[0] < 6.0


def test_questions_alternate_and_are_mixed(begin: Begin) -> None:
    session = begin(top=2, points=6)
    orders: list[tuple[int, ...]] = []
    for number in range(1, 9):
        question = session.question
        assert question == session.question
        wanted = ("order", 2, 6) if number % 2 else ("choose", 1, 4)
        assert (question.part, question.need, len(question.places)) == wanted
        assert question.number == number
        assert sorted(question.places) == list(range(len(question.places)))
        orders.append(question.places)
        answered(session)
    assert any(places != tuple(sorted(places)) for places in orders)
    assert len({places[0] for places in orders}) > 1


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_a_restart_goes_on_with_the_same_question(begin: Begin, stop: int) -> None:
    session = begin(seed=5)
    answered(session, stop)
    before, shown = session.candidates()
    session.close()
    again = begin()
    assert again.candidates() == (before, shown)
    assert again.options["seed"] == 5 and len(again.answers) == stop
    answered(again, 3)
    assert len(json.loads((again.folder / "session.json").read_text())["answers"]) == stop + 3


def test_undo_opens_the_question_before_again(begin: Begin) -> None:
    session = begin()
    with pytest.raises(StaleError, match="no answer to undo"):
        session.undo(session.question.token)
    seen = []
    for _ in range(4):
        seen.append(session.candidates())
        answered(session)
    end = session.candidates()
    for known in reversed(seen):
        session.undo(session.question.token)
        assert session.candidates() == known
    answered(session, 4)
    assert session.candidates() == end
    session.close()
    assert begin().candidates() == end


def test_answers_to_other_questions_change_nothing(begin: Begin) -> None:
    session = begin()
    first = session.question
    session.answer(first.token, [0, 1, 2, 3])
    with pytest.raises(StaleError, match="answered or undone before.*Question 2 is open"):
        session.answer(first.token, [0, 1, 2, 3])  # twice
    second = session.question
    session.undo(second.token)
    session.answer(first.token, [3, 2, 1, 0])
    # Another question with the same number: the tab that shows the older one is refused.
    assert session.question.number == second.number
    for act in (lambda: session.answer(second.token, [0]), lambda: session.undo(second.token)):
        with pytest.raises(StaleError):
            act()
    assert len(session.answers) == 1


@pytest.mark.parametrize("wrong", [[], [0, 0], [4], [[0, 1], 1], "first", None])
def test_what_is_no_order_changes_nothing(begin: Begin, wrong: Any) -> None:
    session = begin()
    before = session.candidates()
    with pytest.raises(RankingError, match="from 0 to 3"):
        session.answer(before[0].token, wrong)
    assert session.candidates() == before and session.answers == []


def test_fewer_than_the_best_few_change_nothing(begin: Begin) -> None:
    session = begin(top=3)
    with pytest.raises(RankingError, match="the best 3"):
        session.answer(session.question.token, [1, 0])
    session.answer(session.question.token, [1, [0, 2]])
    assert session.question.part == "choose"


def test_no_difference_asks_new_candidates_further_apart(begin: Begin) -> None:
    session = begin()

    def spread() -> float:
        values = [float(each.rows[0][1]) for each in session.candidates()[1]]
        return max(values) - min(values)

    first = spread()
    for _ in range(4):
        session.answer(session.question.token, [[0, 1, 2, 3]])
        assert session.question.part == "order"
    assert spread() > 3 * first


def test_a_disk_that_is_full_changes_nothing(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    session = begin()
    answered(session, 2)
    before = session.candidates()

    def full(path: Path, text: str) -> None:
        if path.name == "session.json":
            raise OSError(28, "No space left on device")
        path.write_text(text)

    with monkeypatch.context() as patch:
        patch.setattr("anyorder.judging.session.write_whole", full)
        for act in (lambda: answered(session), lambda: session.undo(before[0].token)):
            with pytest.raises(SessionError, match="No space left on device.*nothing was changed"):
                act()
            assert session.candidates() == before
    answered(session)
    session.close()
    assert len(begin().answers) == 3


def test_render_that_fails_loses_nothing(begin: Begin, tmp_path: Path) -> None:
    session = begin()
    answered(session)
    session.close()

    def fails(given: dict[str, Any]) -> str:
        raise RuntimeError("no pen")

    broken = Session(tmp_path / "session", Task("small", START, fails), {})
    with pytest.raises(Exception, match="no pen"):
        broken.candidates()
    broken.close()
    assert len(begin().answers) == 1


def test_more_questions_are_planned(begin: Begin) -> None:
    session = begin(questions=2)
    answered(session, 3)
    session.more(5)
    assert session.options["questions"] == 8
    session.close()
    assert begin().options["questions"] == 8


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"points": 6}, "has points = 4, got 6; leave the option out"),
        ({"parameters": {"x": 1.5}}, "belongs to other parameters"),
    ],
)
def test_other_sessions_are_refused(begin: Begin, change: dict[str, Any], says: str) -> None:
    session = begin()
    answered(session)
    session.close()
    with pytest.raises(SessionError, match=says):
        begin(**change)
    assert len(begin(points=4, questions=9).answers) == 1


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda s: s[: len(s) // 2], "cannot be read"),
        (lambda s: "[]", "cannot be read"),
        (lambda s: s.replace('"format": 1', '"format": 2'), "expected format 1, got 2"),
        (lambda s: s.replace("[[[", "[[[3], [2], [1], [0]], [[0]], [["), "another version"),
    ],
)
def test_damaged_files_are_refused(begin: Begin, damage: Callable[[str], str], says: str) -> None:
    session = begin()
    answered(session, 2)
    session.close()
    file = session.folder / "session.json"
    text = damage(file.read_text())
    file.write_text(text)
    with pytest.raises(SessionError, match=says):
        begin()
    assert file.read_text() == text


def test_one_process_at_a_time(begin: Begin) -> None:
    session = begin()
    with pytest.raises(SessionError, match="another anyorder rank uses"):
        begin()
    session.close()
    begin()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SessionError, match="cannot be written"):
        Session(tmp_path / "file", Task("t", START, render), {})


def test_options_out_of_range_leave_no_session(begin: Begin) -> None:
    with pytest.raises(HyperError, match="points"):
        begin(points=1)
    begin(points=2)


def _half(folder: Path) -> None:
    session = Session(folder, Task("small", START, render), {})
    answered(session)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_frees_the_folder(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_half, args=(tmp_path / "s",))
    process.start()
    process.join()
    session = Session(tmp_path / "s", Task("small", START, render), {})
    assert process.exitcode == -9 and len(session.answers) == 1
    session.close()


def test_tabs_that_answer_at_once_count_once(begin: Begin, at_once: Any) -> None:
    session = begin()
    token = session.question.token
    errors = at_once(lambda: session.answer(token, [0, 1, 2, 3]))
    assert len(session.answers) == 1
    assert [type(error) for error in errors] == [StaleError] * 5
