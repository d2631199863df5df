"""The training examples: two ranks reach the same result, which is that of one process."""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path

import mpis
import pytest
from conftest import Finished, Ranks, needs, run

EXAMPLES = mpis.ROOT / "examples"
OTHERS = ("seed", "train_digits", "lora_tiny_model")  # prefixes of names; see test_examples.py and test_lora.py
PROGRAMS = [path for path in sorted(EXAMPLES.glob("*.py")) if not path.stem.startswith(OTHERS)]
BOTH = ("numpy_sgd", "mlx_compiled", "mlx_fully_shard")  # NumPy arrays, and every operation of MLX
RUNS = [
    pytest.param(path, mpi, id=f"{path.stem}-{mpi.name}")
    for path in PROGRAMS
    for mpi in mpis.TWO[: 2 if path.stem in BOTH else 1]
]
# Anywhere in a line: hydra may join what two ranks print.
OUTCOME = re.compile(r"rank (\d+) of (\d+): (?:loss|difference) ([\d.e+-]+)(?:, (\d+) parameters held)?")
TOLERANCE = 1e-6  # numbers are summed in another order: differences of up to 2e-7 were seen


def outcome(finished: Finished, size: int) -> tuple[float, int]:
    """What all ranks print: the loss or the difference, and how many parameters each holds."""
    assert finished.status == 0, finished.output
    found = OUTCOME.findall(finished.output)
    assert sorted(found) == [(str(rank), str(size), *found[0][2:]) for rank in range(size)], finished.output
    return float(found[0][2]), int(found[0][3] or 0)


def asked_for(pytestconfig: pytest.Config, mpi: mpis.MPI) -> None:
    if mpi not in mpis.chosen(pytestconfig.getoption("--mpi")):
        pytest.skip(f"{mpi.name} is not installed or not asked for")


@functools.cache
def alone(program: Path) -> tuple[float, int]:
    return outcome(run([sys.executable, str(program)]), 1)


@pytest.mark.parametrize(("program", "used"), RUNS)
def test_two_ranks_come_to_what_one_does(
    pytestconfig: pytest.Config, ranks: Ranks, program: Path, used: mpis.MPI
) -> None:
    needs(program.read_text())
    asked_for(pytestconfig, used)
    number, held = outcome(ranks(used, 2, program), 2)
    number_alone, held_alone = alone(program)
    assert number == pytest.approx(number_alone, abs=TOLERANCE)
    assert held <= 0.51 * held_alone, "each has its half, and small vectors that both have"


FAULTS = {
    "no mean": ("dist.average_gradients(gradients)", "gradients"),
    "the same share": ("order[start + rank :", "order[start :"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_comparison_fails_when_it_must(pytestconfig: pytest.Config, ranks: Ranks, fault: str) -> None:
    program = EXAMPLES / "numpy_sgd.py"
    needs(program.read_text())
    asked_for(pytestconfig, mpis.TWO[0])
    right, wrong = FAULTS[fault]
    assert right in program.read_text()
    finished = ranks(mpis.TWO[0], 2, program.read_text().replace(right, wrong))
    found = [float(loss) for _, _, loss, _ in OUTCOME.findall(finished.output)]
    assert len(found) == 2, finished.output
    assert len(set(found)) == (2 if fault == "no mean" else 1)
    assert abs(found[0] - alone(program)[0]) > TOLERANCE
