"""The seed programs and train_digits.py, in one process and on two ranks."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import mpis
import pytest
from conftest import Finished, Ranks, needs

TRAIN = mpis.ROOT / "examples" / "train_digits.py"
EXAMPLES = [*sorted((mpis.ROOT / "examples").glob("seed*.py")), TRAIN]
SHORT = ("--epochs", "3")
HAS_MLX = importlib.util.find_spec("mlx") is not None


def check(finished: Finished) -> None:
    assert finished.status == 0, finished.output


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_alone(ranks: Ranks, example: Path) -> None:
    needs(example.read_text())
    check(ranks(None, 1, example, *(SHORT if example == TRAIN else ())))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_on_two_ranks(two: mpis.MPI, ranks: Ranks, example: Path) -> None:
    needs(example.read_text())
    finished = ranks(two, 2, example, *(SHORT if example == TRAIN else ()))
    check(finished)
    if example == TRAIN:
        assert finished.output.count("2 ranks: loss") == 1, "rank 0 alone prints"


ARRAYS = [pytest.param((), marks=pytest.mark.skipif(not HAS_MLX, reason="MLX is not installed")), ("--numpy",)]


@pytest.mark.parametrize("arrays", ARRAYS, ids=["mlx", "numpy"])
def test_one_and_two_ranks_learn_the_same(two: mpis.MPI, ranks: Ranks, tmp_path: Path, arrays: tuple[str, ...]) -> None:
    needs(TRAIN.read_text())
    alone = tmp_path / "alone.json"
    check(ranks(None, 1, TRAIN, *SHORT, *arrays, "--save", str(alone)))
    finished = ranks(two, 2, TRAIN, *SHORT, *arrays, "--compare", str(alone))
    check(finished)
    assert "1 rank and 2 ranks agree" in finished


@pytest.mark.parametrize("arrays", ARRAYS, ids=["mlx", "numpy"])
@pytest.mark.parametrize("fault", ["no sum", "no division", "the same share"])
def test_the_comparison_fails_when_it_must(
    two: mpis.MPI, ranks: Ranks, tmp_path: Path, arrays: tuple[str, ...], fault: str
) -> None:
    """A demo that cannot fail proves nothing."""
    if two != mpis.TWO[0]:
        pytest.skip("one will do: the fault is not the MPI's")
    text = TRAIN.read_text()
    needs(text)
    replaced = {
        "no sum": [
            ("nn.average_gradients(gradients)", "gradients"),
            ("dist.average_gradients(gradients)", "gradients"),
        ],
        "no division": [
            ("nn.average_gradients(gradients)", "nn.utils.tree_map(mx.distributed.all_sum, gradients)"),
            ("dist.average_gradients(gradients)", "map(dist.all_sum, gradients)"),
        ],
        "the same share": [("order[start + rank :", "order[start :")],
    }[fault]
    for right, wrong in replaced:
        assert right in text
        text = text.replace(right, wrong)
    alone = tmp_path / "alone.json"
    check(ranks(None, 1, TRAIN, *SHORT, *arrays, "--save", str(alone)))
    finished = ranks(two, 2, text, *SHORT, *arrays, "--compare", str(alone))
    assert finished.status != 0, finished.output
    assert "DISAGREE" in finished, finished.output


def test_a_run_is_not_compared_with_one_of_as_many_ranks(ranks: Ranks, tmp_path: Path) -> None:
    """Two ranks that each ran alone would agree with one process."""
    needs(TRAIN.read_text())
    alone = tmp_path / "alone.json"
    check(ranks(None, 1, TRAIN, *SHORT, "--numpy", "--save", str(alone)))
    assert json.loads(alone.read_text())["ranks"] == 1
    finished = ranks(None, 1, TRAIN, *SHORT, "--numpy", "--compare", str(alone))
    assert finished.status != 0, finished.output
