from __future__ import annotations

from anyorder_studies.malladi2023mezo.picture import draw_memory_and_learning

RUN = {"checks": [0, 1, 2], "losses": [2.0, 1.0, 0.5], "accuracies": [40.0, 60.0, 90.0]}


def test_bytes_and_accuracies_over_their_price() -> None:
    found = {
        "memory": [{"weights": 8e6, "inference": 1e7, "mezo": 1.1e7, "adamw": 4e7}],
        "sgd": [{**RUN, "forwards_per_step": 3.0}] * 2,
        "mezo": [{**RUN, "forwards_per_step": 2.0}] * 2,
    }
    left, right = draw_memory_and_learning(found).axes
    assert [bar.get_height() for bar in left.patches] == [10.0, 11.0, 40.0]
    assert {"1.00 x", "1.10 x", "4.00 x", "inference", "MeZO", "AdamW"} == {
        text.get_text() for text in left.texts
    }
    sgd, _, mezo, _, before = right.lines
    assert list(sgd.get_xdata()) == [3.0, 6.0]
    assert list(mezo.get_xdata()) == [2.0, 4.0]
    assert list(mezo.get_ydata()) == [60.0, 90.0]
    assert list(before.get_ydata()) == [40.0, 40.0]
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["SGD", "MeZO"]
