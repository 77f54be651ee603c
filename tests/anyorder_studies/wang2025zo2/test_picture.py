from __future__ import annotations

from anyorder_studies.wang2025zo2.picture import draw_memory_and_accuracy


def test_bytes_and_accuracies() -> None:
    memory = [
        {"weights": 1e8, "mezo": 1.1e8, "zo2": 1e7},
        {"weights": 1e8, "mezo": 1.3e8, "zo2": 3e7},
    ]
    full = [{"before": 40.0, "after": 90.0}, {"before": 41.0, "after": 91.0}]
    narrow = [{"before": 40.0, "after": 80.0}, {"before": 41.0, "after": 82.0}]
    left, right = draw_memory_and_accuracy(memory, full, narrow).axes
    assert [bar.get_height() for bar in left.patches] == [100.0, 120.0, 20.0]
    assert {"100", "120", "20", "MeZO", "ZO2"} <= {text.get_text() for text in left.texts}
    assert [list(line.get_ydata()) for line in right.lines] == [
        [40.0, 90.0, 80.0], [90.0, 80.0], [41.0, 91.0, 82.0], [91.0, 82.0],
    ]  # fmt: skip
