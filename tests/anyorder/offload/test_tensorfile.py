"""Files of named tensors: whole or not at all, and readable by others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from anyorder.offload import OffloadError, tensorfile


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    return {
        "odd": torch.randn(3, 5).half(),
        "wide": torch.randn(2, dtype=torch.float64),
        "plain": torch.randn(4, 3),
        "scalar": torch.tensor(2.5),
        "brain": torch.randn(7).bfloat16(),
        "none": torch.empty(0, 3),
    }


def test_what_is_written_is_read(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "file"
    tensorfile.write(path, tensors, {"updates": "7"})
    assert tensorfile.read_header(path).texts == {"updates": "7"}
    found = {name: torch.full_like(t, 9) for name, t in tensors.items()}
    tensorfile.read_into(path, found)
    mapped = tensorfile.mapped(path)
    for name, tensor in tensors.items():
        for other in (found[name], mapped[name]):
            assert other.dtype == tensor.dtype
            assert torch.equal(other, tensor)


def test_the_format_is_that_of_safetensors(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    tensorfile.write(ours, tensors, {"updates": "7"})
    with safetensors.safe_open(ours, "pt") as file:
        assert file.metadata() == {"updates": "7"}
        assert set(file.keys()) == set(tensors)
        assert all(torch.equal(file.get_tensor(name), t) for name, t in tensors.items())
    from safetensors.torch import save_file

    save_file(tensors, theirs)
    assert all(torch.equal(tensorfile.mapped(theirs)[name], t) for name, t in tensors.items())


def test_mapped_tensors_are_independent_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    tensorfile.write(path, {"a": torch.zeros(5)}, {})
    first = tensorfile.mapped(path)["a"]
    first += 1
    assert tensorfile.mapped(path)["a"].sum() == 0
    second = tensorfile.mapped(path)["a"]
    tensorfile.write(path, {"a": torch.ones(5)}, {})
    assert second.sum() == 0
    assert tensorfile.mapped(path)["a"].sum() == 5


@pytest.mark.parametrize("kept", [0, 5, 60, -1])
def test_damaged_files_are_refused(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    tensorfile.write(path, {"a": torch.zeros(50)}, {})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(OffloadError, match="cannot read .*file"):
        tensorfile.read_header(path)
    with pytest.raises(OffloadError, match="cannot read .*file"):
        tensorfile.mapped(path)


def test_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OffloadError, match="cannot read"):
        tensorfile.read_header(tmp_path / "none")


@pytest.mark.parametrize(
    "other", [{"a": torch.zeros(4)}, {"a": torch.zeros(5).half()}, {"b": torch.zeros(5)}, {}]
)
def test_other_tensors_are_refused(other: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "file"
    tensorfile.write(path, {"a": torch.zeros(5)}, {})
    with pytest.raises(OffloadError, match="does not fit the model: a"):
        tensorfile.read_into(path, other)
