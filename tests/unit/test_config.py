"""config: the names of variables, former ones included."""

from __future__ import annotations

import pytest

from mlxdist import config

OLD, NEW = "MLXDIST_NODE", "MLXDIST_SHARED_MEMORY"


@pytest.mark.parametrize(
    ("environ", "value"),
    [
        ({}, "1"),
        ({NEW: "0"}, "0"),
        ({OLD: "0"}, "0"),
        ({OLD: "0", NEW: "1"}, "1"),
        ({OLD: "1", NEW: "0"}, "0"),
        ({OLD: "0", NEW: ""}, "0"),
        ({OLD: "", NEW: ""}, "1"),
    ],
)
def test_a_former_name_works_and_the_present_one_wins(environ: dict[str, str], value: str) -> None:
    assert config.SHARED_MEMORY.get(environ) == value


def test_os_environ_is_read_at_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OLD, "0")
    assert config.SHARED_MEMORY.get() == "0"
    monkeypatch.setenv(NEW, "1")
    assert config.SHARED_MEMORY.get() == "1"


def test_no_name_means_two_things() -> None:
    variables = [variable for variable in vars(config).values() if isinstance(variable, config.Variable)]
    names = [name for variable in variables for name in (variable.name, *variable.former_names)]
    assert len(names) == len(set(names))
