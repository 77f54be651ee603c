"""Reading texts and labels: three formats, and what is refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from anyorder.finetune.data import Examples, FinetuneError, held_out, read_examples

SAME = {
    "a.csv": 'text,label\nfirst,1\n"second, with comma",0\n',
    "a.tsv": "label\ttext\n1\tfirst\n0\tsecond, with comma\n",
    "a.jsonl": '{"text": "first", "label": 1}\n\n{"text": "second, with comma", "label": "0"}\n',
    "bom.csv": '\ufefftext,label,more\nfirst,1,x\n"second, with comma",0,y\n',
}


def put(tmp_path: Path, name: str, content: str) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode())
    return path


@pytest.mark.parametrize("name", SAME)
def test_formats_hold_the_same(tmp_path: Path, name: str) -> None:
    found = read_examples(put(tmp_path, name, SAME[name]))
    assert found == Examples(["first", "second, with comma"], [1, 0], ["0", "1"])


WRONG = {
    "a.txt": ("x", "expected a file that ends with .csv, .tsv, .jsonl"),
    "a.csv": (
        "sentence,label\na,1\n",
        "columns text and label .* got sentence, label",
    ),
    "empty.csv": ("", "expected the columns text and label .* got nothing"),
    "none.csv": ("text,label\n", "holds no examples"),
    "one.csv": ("text,label\na,1\nb,1\n", "at least two different labels, got .'1'."),
    "short.csv": ("text,label\na,1\nb\n", "line 3: expected text and a label"),
    "a.jsonl": ('{"text": "a", "label": 0}\n{"text"\n', "line 2: no JSON"),
    "list.jsonl": ("[1, 2]\n", "line 1: expected text and a label"),
    "float.jsonl": ('{"text": "a", "label": 0.5}\n', "a word or a whole number"),
    "bool.jsonl": ('{"text": "a", "label": true}\n', "a word or a whole number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_are_refused_in_words(tmp_path: Path, name: str) -> None:
    content, words = WRONG[name]
    with pytest.raises(FinetuneError, match=words):
        read_examples(put(tmp_path, name, content))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match="cannot read .*No such file"):
        read_examples(tmp_path / "missing.csv")
    (tmp_path / "latin.csv").write_bytes(b"text,label\n\xe9,1\n")
    with pytest.raises(FinetuneError, match="cannot read"):
        read_examples(tmp_path / "latin.csv")


def test_classes_of_the_training_bind_the_validation(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", "text,label\na,no\nb,yes\n")
    assert read_examples(path, ["yes", "no", "perhaps"]).labels == [1, 0]
    with pytest.raises(FinetuneError, match="labels .'no'. are not among those of the training"):
        read_examples(path, ["yes", "perhaps"])


def test_the_split_is_a_function_of_the_seed() -> None:
    all_ = Examples([str(n) for n in range(50)], [n % 2 for n in range(50)], ["0", "1"])
    train, held = held_out(all_, 0.2, seed=3)
    assert (train, held) == held_out(all_, 0.2, seed=3)
    assert sorted(train.texts + held.texts, key=int) == all_.texts
    assert len(held.texts) == 10
    assert all(int(t) % 2 == label for t, label in zip(held.texts, held.labels, strict=True))
    assert held != held_out(all_, 0.2, seed=4)[1]
    for fraction in (0.0, 1.0, 0.001, -1.0):
        with pytest.raises(FinetuneError, match="expected a fraction between 0 and 1, or a file"):
            held_out(all_, fraction, seed=0)
