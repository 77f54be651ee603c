from __future__ import annotations

import os
from collections import Counter

import pytest
import torch

from anyorder.testing.elsewhere import START, elsewhere, processes


def of_this_process(changed: int) -> bytes:
    return f"{os.getpid()} {changed} {sum(KEPT.values())} {torch.ones(2).sum().item()}".encode()


def failing(text: str) -> bytes:
    raise ValueError(text)


def ending(code: int) -> bytes:
    os._exit(code)


KEPT: Counter[str] = Counter()


def test_work_is_done_in_a_new_process_that_knows_only_what_it_is_given() -> None:
    KEPT["here"] = 5
    said = [elsewhere(of_this_process, number).decode().split() for number in (3, 4)]
    assert [words[1:] for words in said] == [["3", "0", "2.0"], ["4", "0", "2.0"]]
    assert len({os.getpid(), *(int(words[0]) for words in said)}) == 3


def test_work_that_fails_says_where() -> None:
    with pytest.raises(AssertionError, match=r"(?s)in failing.*ValueError: all is lost"):
        elsewhere(failing, "all is lost")
    with pytest.raises(AssertionError, match="exit code 7: the process ended without a message"):
        elsewhere(ending, 7)


def test_the_context_is_for_processes_of_every_kind() -> None:
    assert processes().get_start_method() == START
    assert processes() is processes()
