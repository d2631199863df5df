"""The expected results of the operations, computed differently: with Python's integers, float64 and one rounding.

Every rank can compute the values of all ranks, so each knows the complete answer without communication.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import ml_dtypes
import numpy as np

import mlxdist as dist
from mlxdist import config

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
HALVES = ("float16", "bfloat16")
REALS = (*HALVES, "float32", "float64")
COMPLEX = ("complex64", "complex128")
WITH_MEAN = (*REALS, *COMPLEX)
NAMES = ("bool", *INTEGERS, *WITH_MEAN)
BITWISE = ("all_band", "all_bor")
CALLS: dict[str, Callable[..., Any]] = {
    name: getattr(dist, name) for name in ("all_sum", "all_max", "all_min", "all_prod", *BITWISE)
}

Case = TypeVar("Case")
MAX_COUNT = int(config.MAX_COUNT.get())
SPECIAL = (math.nan, math.inf, -math.inf, 0.0, -0.0)


def long(count: int) -> int:
    """``count``, or less if MAX_COUNT is small, so that the array is not split into many pieces."""
    return min(count, 6 * MAX_COUNT + 3)


def thinned(cases: Iterable[Case], name: str, size: int, at_two: int, beyond: int) -> Iterator[Case]:
    """Every case in one process, every ``at_two``-th on two ranks, every ``beyond``-th on more, others for each dtype.

    With more ranks than processors each call takes long. Strides without a common factor with the numbers of shapes,
    providers and so on still cover every pair of them.
    """
    every = {1: 1, 2: at_two}.get(size, beyond)
    return itertools.islice(cases, NAMES.index(name) % every, None, every)


def calls_of(name: str, in_any_order: bool = True) -> list[str]:
    """The reductions that a dtype has; those that do not depend on the order of the ranks, or all.

    A product of complex numbers does where zeros have signs and numbers are infinite.
    """
    refused = {"all_prod"} if in_any_order and name in COMPLEX else set()
    return [call for call in CALLS if call not in (refused | set(BITWISE if name in WITH_MEAN else ()))]


def dtype_of(name: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def seeded(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@functools.cache
def values(name: str, shape: tuple[int, ...], rank: int) -> np.ndarray:
    """The array of ``rank``: integers of every size; floats, special ones too, whose sums and products are exact."""
    random = seeded(NAMES.index(name), math.prod(shape), rank)
    dtype = dtype_of(name)
    made = np.empty(shape, dtype)
    if name in COMPLEX:
        made.real, made.imag = real_values(random, shape), real_values(random, shape)
    elif name in REALS:
        made[...] = real_values(random, shape)
    elif name == "bool":
        made[...] = random.integers(0, 2, shape)
    else:
        made[...] = random.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    made.setflags(write=False)
    return made


def real_values(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Powers of two, few enough that ranks often tie; every fifth number is a special value."""
    ordinary = random.choice((-2, -1, -0.5, 0, 0.5, 1, 2), shape)
    return np.where(random.random(shape) < 0.2, random.choice(SPECIAL, shape), ordinary)


def reduced(call: str, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The reduction of the ranks' ``arrays``, one element at a time; a group of one keeps what it has."""
    if len(arrays) == 1:
        return arrays[0].copy()
    dtype, shape = arrays[0].dtype, arrays[0].shape
    wide = wide_of(dtype.name)
    columns = zip(*(x.astype(wide).reshape(-1).tolist() for x in arrays), strict=True)
    if dtype.name == "bool":
        pick: Callable[[Sequence[Any]], Any] = all if call in ("all_min", "all_prod", "all_band") else any
    elif dtype.name in INTEGERS:
        pick = {
            "all_sum": lambda column: wrapped(sum(column), dtype),
            "all_max": max,
            "all_min": min,
            "all_prod": lambda column: wrapped(math.prod(column), dtype),
            "all_band": lambda column: functools.reduce(operator.and_, column),
            "all_bor": lambda column: functools.reduce(operator.or_, column),
        }[call]
    else:
        highest = largest_complex if dtype.name in COMPLEX else largest
        pick = {
            "all_sum": lambda column: functools.reduce(operator.add, column),
            "all_max": highest,
            "all_min": lambda column: -highest([-x for x in column]),
            "all_prod": lambda column: functools.reduce(times if dtype.name in COMPLEX else operator.mul, column),
        }[call]
    return np.array([pick(column) for column in columns], wide).astype(dtype).reshape(shape)


def mean(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The sum in the dtype, divided and rounded once more."""
    total = reduced("all_sum", arrays)
    return total if len(arrays) == 1 else quotient(total, len(arrays))


def quotient(x: np.ndarray, n: int) -> np.ndarray:
    """Both parts of complex numbers, by way of float64, which has more than twice the digits of the narrower types."""
    if x.dtype.name in COMPLEX:
        made = np.empty_like(x)
        made.real, made.imag = np.float64(x.real) / n, np.float64(x.imag) / n
        return made
    with np.errstate(all="ignore"):
        exact = x.astype(np.float64) / n
        return (rounded(exact, x.dtype.name) if x.dtype.name in HALVES else exact).astype(x.dtype)


def wide_of(name: str) -> Any:
    return np.complex128 if name in COMPLEX else np.float64 if name in REALS else dtype_of(name)


def wrapped(exact: int, dtype: np.dtype[Any]) -> int:
    bits, lowest = 8 * dtype.itemsize, int(np.iinfo(dtype).min)
    return (exact - lowest) % 2**bits + lowest


def times(a: complex, b: complex) -> complex:
    """Python's own rule for infinite numbers depends on its version."""
    return complex(a.real * b.real - a.imag * b.imag, a.real * b.imag + a.imag * b.real)


def largest(column: Sequence[float]) -> float:
    """NaN before everything, +0 before -0."""
    if any(map(math.isnan, column)):
        return math.nan
    return max(column, key=lambda x: (x, math.copysign(1, x)))


def largest_complex(column: Sequence[complex]) -> complex:
    """By real, then imaginary part; if equal, so that only signs of zeros differ, the larger of each part."""
    if any(math.isnan(x.real) or math.isnan(x.imag) for x in column):
        return complex(math.nan, math.nan)
    best = max((x.real, x.imag) for x in column)
    equals = [x for x in column if (x.real, x.imag) == best]
    return complex(largest([x.real for x in equals]), largest([x.imag for x in equals]))


def rounded(x: np.ndarray, name: str) -> np.ndarray:
    """float64 rounded to nearest even, still as float64: once, and without any library for float16 or bfloat16."""
    precision, least, most = {"float16": (11, -24, 16), "bfloat16": (8, -133, 128)}[name]
    with np.errstate(all="ignore"):
        scale = np.ldexp(1.0, np.maximum(np.frexp(x)[1] - precision, least))
        result = np.rint(x / scale) * scale
    return np.where(np.abs(result) >= 2.0**most, np.copysign(np.inf, x), result)


def rounded_product(x: np.ndarray, y: np.ndarray, name: str) -> np.ndarray:
    """Of two 16-bit floats, in float64: exact in float32, unless bfloat16's are too small for that."""
    return rounded((x * y).astype(np.float32).astype(np.float64), name)


def parts(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """The numbers of ``x`` in a type that can be compared."""
    if x.dtype.name in COMPLEX:
        return x.real, x.imag
    with np.errstate(invalid="ignore"):  # NumPy warns about a signalling NaN
        return (x.astype(np.float64) if x.dtype.name in HALVES else x,)


def assert_numbers(actual: np.ndarray, expected: np.ndarray) -> None:
    """Numbers are equal, including the signs of zeros; NaN where NaN is expected."""
    for got, wanted in zip(parts(actual), parts(expected), strict=True):
        np.testing.assert_array_equal(got, wanted)
        if got.dtype.kind == "f":
            number = ~np.isnan(wanted)
            np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(wanted[number]))


def assert_same(actual: object, expected: np.ndarray) -> None:
    """A NumPy array of the dtype, shape and numbers of ``expected``."""
    assert type(actual) is np.ndarray
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if actual.tobytes() != expected.tobytes():
        assert_numbers(actual, expected)


def assert_new(result: np.ndarray, *others: np.ndarray) -> None:
    """An array whose memory begins on a cache line."""
    assert result.ctypes.data % 64 == 0
    assert result.flags.c_contiguous
    assert result.flags.writeable
    assert not any(np.may_share_memory(result, other) for other in others)
