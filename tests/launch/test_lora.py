"""mlx-lm's own command, unchanged, on a generated model: two ranks learn the same as one."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import mpis
import numpy as np
import pytest
from conftest import Finished, needs, run

MAKER = mpis.ROOT / "examples" / "lora_tiny_model.py"
TRAIN = re.search(r'lora="(mlx_lm lora .*)"', MAKER.read_text())
COLOR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ROW = re.compile(r"^ +(\d+) +(val )?(\d\.\d+)", re.MULTILINE)
TOLERANCE = 1e-6  # for weights up to 0.2; 2e-8 was seen


def losses(finished: Finished) -> list[tuple[str, ...]]:
    """What rank 0 reports: iteration, "val " or "", and loss."""
    assert finished.status == 0, finished.output
    return ROW.findall(COLOR.sub("", finished.output.replace("\r", "\n")))


def command(folder: Path, adapters: str) -> list[str]:
    """The command from the example, on a model in ``folder``."""
    assert TRAIN is not None
    return [*TRAIN[1].replace(" tiny", f" {folder}").split(), "--adapter-path", str(folder / adapters)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, ...]]]:
    """A directory with a model that one process has trained without mlxdist, and the losses it reported."""
    needs(MAKER.read_text())
    folder = tmp_path_factory.mktemp("lora")
    made = run([sys.executable, str(MAKER), str(folder)])
    assert made.status == 0, made.output
    # MLX by itself would open any libmpi that it finds; 0.32.4 crashes if that is MPICH.
    environ = {"TMPDIR": str(folder), "MLX_MPI_LIBNAME": "none"}
    learnt = losses(run([sys.executable, "-m", *command(folder, "alone")], timeout_s=240, **environ))
    return folder, learnt


def test_two_ranks_learn_what_one_does(
    two: mpis.MPI, alone: tuple[Path, list[tuple[str, ...]]], pytestconfig: pytest.Config
) -> None:
    mx = pytest.importorskip("mlx.core", reason="MLX is not installed")
    if two != mpis.TWO[1] and not pytestconfig.getoption("--full"):
        pytest.skip("one will do: --full for both")
    folder, learnt = alone
    ranks = ["env", f"TMPDIR={folder}", sys.executable, "-m", "mlxdist", "-m", *command(folder, two.name)]
    assert losses(run(two.command(2, *ranks), timeout_s=240, **two.environment())) == learnt
    assert [iteration for iteration, *_ in learnt] == ["1", "10", "20", "30", "30"]
    assert float(learnt[-1][2]) < float(learnt[0][2]) - 0.5, "nothing was learnt"
    one, both = (mx.load(str(folder / name / "adapters.safetensors")) for name in ("alone", two.name))
    assert one.keys() == both.keys()
    for name in one:
        np.testing.assert_allclose(np.array(one[name]), np.array(both[name]), rtol=0, atol=TOLERANCE, err_msg=name)
