"""Every public name has a docstring, and MLX's signature if MLX has that name."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import mlxdist as dist
from mlxdist import ops

MEMBERS = [name for name in dir(dist.Group) if not name.startswith("_")]
DOCUMENTED: dict[str, Any] = {name: getattr(dist, name) for name in [*dist.__all__, "TimeoutError"]} | {
    f"Group.{name}": inspect.getattr_static(dist.Group, name) for name in MEMBERS
}
OPERATIONS = [name for name in dist.__all__ if hasattr(ops, name)]

# (positional parameters, keyword-only ones); parameters with defaults in MLX are written name=default
SIGNATURES: dict[str, tuple[list[str], list[str]]] = {
    "init": (["strict=False", "backend='any'"], []),
    "is_available": (["backend='any'"], []),
    "all_sum": (["x"], ["group=None", "stream=None"]),
    "all_max": (["x"], ["group=None", "stream=None"]),
    "all_min": (["x"], ["group=None", "stream=None"]),
    "all_gather": (["x"], ["group=None", "stream=None"]),
    "sum_scatter": (["x"], ["group=None", "stream=None"]),
    "send": (["x", "dst"], ["group=None", "stream=None"]),
    "recv": (["shape", "dtype", "src"], ["group=None", "stream=None"]),
    "recv_like": (["x", "src"], ["group=None", "stream=None"]),
    "average_gradients": (
        ["gradients", "group=None", "all_reduce_size=33554432", "communication_stream=None"],
        [],
    ),
    "Group.rank": (["self"], []),
    "Group.size": (["self"], []),
    "Group.split": (["self", "color", "key=-1"], []),
}
# What mlxdist adds, always after MLX's own and keyword-only.
OUT = ("all_sum", "all_max", "all_min", "all_gather", "sum_scatter", "recv_like")


def test_all_is_what_there_is() -> None:
    assert list(dist.__all__) == sorted(dist.__all__)
    assert {"rank", "size", "split", "mlx"} <= set(MEMBERS)
    assert {"all_sum", "broadcast", "barrier", "send"} <= set(OPERATIONS)
    assert dist.__version__
    assert dist.__doc__


@pytest.mark.parametrize("name", DOCUMENTED)
def test_says_what_it_is(name: str) -> None:
    first = (inspect.getdoc(DOCUMENTED[name]) or "").partition("\n")[0]
    assert first, "no docstring"
    assert first[0].isupper(), first
    assert first[-1] in ".:;!?", f"the first line does not end a sentence: {first}"


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_have_an_example(name: str) -> None:
    _, found, example = (inspect.getdoc(getattr(dist, name)) or "").partition("Example:\n")
    assert found
    assert example.lstrip().startswith(">>> ")
    assert f"{name}(" in example


def written(parameter: inspect.Parameter) -> str:
    default = parameter.default
    return parameter.name if default is inspect.Parameter.empty else f"{parameter.name}={default!r}"


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_those_of_mlx(name: str) -> None:
    positional, keywords = SIGNATURES[name]
    thing: Any = dist
    for part in name.split("."):
        thing = getattr(thing, part)
    parameters = list(inspect.signature(thing).parameters.values())
    assert [written(p) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD] == positional
    ours = [written(p) for p in parameters if p.kind is p.KEYWORD_ONLY]
    assert ours[: len(keywords)] == keywords
    beyond = ours[len(keywords) :]
    assert ("out=None" in beyond) == (name in OUT)
    assert all("=" in parameter for parameter in beyond), "a program written for MLX would lack it"
    assert len(parameters) == len(positional) + len(ours)


def test_signatures_beyond_mlx() -> None:
    for name in ("all_prod", "all_band", "all_bor"):
        assert inspect.signature(getattr(dist, name)) == inspect.signature(dist.all_sum)
    assert [written(p) for p in inspect.signature(dist.broadcast).parameters.values()] == [
        *("x", "src", "group=None", "stream=None", "out=None", "wait=True")
    ]
    assert [written(p) for p in inspect.signature(dist.barrier).parameters.values()] == ["group=None", "wait=True"]
    for call in (dist.broadcast, dist.barrier):
        assert inspect.signature(call).parameters["group"].kind is inspect.Parameter.KEYWORD_ONLY
