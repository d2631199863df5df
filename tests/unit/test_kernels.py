"""The kernels alone: inputs of one process reduced into one output, compared with Python's numbers and float64."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import best_kernels
from parallel.reference import (
    CALLS,
    COMPLEX,
    HALVES,
    INTEGERS,
    NAMES,
    REALS,
    assert_numbers,
    calls_of,
    dtype_of,
    parts,
    quotient,
    reduced,
    rounded,
    rounded_product,
    seeded,
    values,
)

from mlxdist import _core

BLOCK = 512
COUNTS = (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 1)
PATTERNS = np.arange(2**16, dtype=np.uint16)
SUM, MAX, MIN, PROD, BAND, BOR = map(_core.REDUCTION_NAMES.index, CALLS)
QUIET = {"float16": 0x0200, "bfloat16": 0x0040}


def usable() -> tuple[str, ...]:
    """The variants that this processor supports; others are compiled but not run here."""
    names = []
    for name in _core.kernels():
        try:
            names.append(_core.use_kernels(name))
        except ValueError:
            pass
    _core.use_kernels("")
    return tuple(names)


VARIANTS = usable()


@pytest.fixture(params=VARIANTS, autouse=True)
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run every test with every variant."""
    yield _core.use_kernels(request.param)
    _core.use_kernels("")


def reduce(op: int, *inputs: np.ndarray) -> np.ndarray:
    output = np.empty_like(inputs[0])
    _core.reduce_locally(op, inputs, output)
    return output


def bits(name: str, *patterns: int) -> np.ndarray:
    return np.array(patterns, np.uint16).view(dtype_of(name))


def test_the_table_has_every_type_and_call() -> None:
    assert set(_core.DTYPES) == set(NAMES)
    assert set(_core.REDUCTION_NAMES) == set(CALLS)


each_pair = pytest.mark.parametrize(
    ("name", "call"), [(name, call) for name in NAMES for call in calls_of(name, in_any_order=False)]
)


@each_pair
def test_against_python(name: str, call: str) -> None:
    """1 to 5 inputs, counts around the block size."""
    for n_inputs, count in itertools.product(range(1, 6), COUNTS):
        inputs = [values(name, (count,), rank) for rank in range(n_inputs)]
        expected = reduced(call, inputs)
        result = reduce(_core.REDUCTION_NAMES.index(call), *inputs)
        if n_inputs == 1 and name not in HALVES:
            assert result.tobytes() == expected.tobytes()
        else:
            assert_numbers(result, expected)


@pytest.mark.parametrize("name", NAMES)
def test_output_may_be_any_input(name: str) -> None:
    count = 2 * BLOCK + 3
    originals = [values(name, (count,), rank) for rank in range(3)]
    for call, place in itertools.product(calls_of(name, in_any_order=False), range(3)):
        inputs = [x.copy() for x in originals]
        _core.reduce_locally(_core.REDUCTION_NAMES.index(call), inputs, inputs[place])
        assert_numbers(inputs[place], reduced(call, originals))
        for other in {0, 1, 2} - {place}:
            assert inputs[other].tobytes() == originals[other].tobytes()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", COUNTS)
def test_nothing_beside_the_output_is_written(name: str, count: int) -> None:
    """Even if no pointer is aligned."""
    dtype = dtype_of(name)

    def unaligned(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raw = np.full(x.nbytes + 67, 0xA5, np.uint8)
        view = np.ndarray(x.shape, dtype, raw, 3)
        view[...] = x
        return raw, view

    each = [values(name, (count,), rank) for rank in range(2)]
    (_, first), (_, second) = map(unaligned, each)
    for call in calls_of(name, in_any_order=False):
        raw, output = unaligned(np.zeros(count, dtype))
        _core.reduce_locally(_core.REDUCTION_NAMES.index(call), [first, second], output)
        assert_numbers(output, reduced(call, each))
        assert set(raw[:3]) | set(raw[3 + output.nbytes :]) == {0xA5}


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("op", [SUM, MAX, MIN, PROD])
def test_one_input_keeps_every_half(name: str, op: int) -> None:
    """Each of the 65,536 is unchanged, except that a NaN becomes quiet, keeping its sign and its other bits."""
    x = PATTERNS.view(dtype_of(name))
    nan = np.isnan(parts(x)[0])
    assert nan.sum() == {"float16": 2 * 1023, "bfloat16": 2 * 127}[name]
    np.testing.assert_array_equal(reduce(op, x).view(np.uint16), np.where(nan, PATTERNS | QUIET[name], PATTERNS))


@pytest.mark.parametrize("name", HALVES)
def test_every_half_with_others_is_rounded_once(name: str) -> None:
    random = seeded(1, len(name))
    every = PATTERNS.view(dtype_of(name))
    # zeros, subnormals, one, numbers that make ties, the largest, infinities, NaN, and random ones
    fixed = {
        "float16": (0, 0x8000, 1, 0x83FF, 0x0400, 0x3C00, 0x1001, 0xBC01, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00),
        "bfloat16": (0, 0x8000, 1, 0x807F, 0x0080, 0x3F80, 0x3B81, 0xBF81, 0x7F7F, 0xFF7F, 0x7F80, 0xFF80, 0x7FC0),
    }[name]
    for other in (*fixed, *random.integers(0, 2**16, 20)):
        others = np.full(2**16, other, np.uint16).view(dtype_of(name))
        for inputs in ((every, others), (others, every)):
            with np.errstate(all="ignore"):
                exact = parts(inputs[0])[0] + parts(inputs[1])[0]
                expected = rounded(exact, name)
                if name == "float16":  # NumPy's own rounding is a second opinion
                    assert_numbers(expected, exact.astype(np.float16).astype(np.float64))
                product = rounded_product(parts(inputs[0])[0], parts(inputs[1])[0], name)
            assert_numbers(parts(reduce(SUM, *inputs))[0], expected)
            assert_numbers(parts(reduce(PROD, *inputs))[0], product)


@pytest.mark.parametrize("name", HALVES)
def test_sums_of_many_halves_are_rounded_at_the_end_only(name: str) -> None:
    """For numbers whose float32 sum is exact, so that only one rounding is correct."""
    random = seeded(2, len(name))
    significand = {"float16": 2**11, "bfloat16": 2**8}[name]
    inputs = [random.integers(-significand, significand, 5000) * 2.0 ** random.integers(-6, -3, 5000) for _ in range(5)]
    result = reduce(SUM, *(x.astype(dtype_of(name)) for x in inputs))
    expected = rounded(np.sum(inputs, axis=0), name)
    assert (expected != np.sum(inputs, axis=0)).mean() > 0.1  # there is something to round
    assert_numbers(parts(result)[0], expected)


@pytest.mark.parametrize(
    ("name", "first", "second", "expected"),
    [
        ("float16", 0x6800, 0x3C00, 0x6800),  # 2048 + 1: a tie, down to the even one
        ("float16", 0x6801, 0x3C00, 0x6802),  # 2050 + 1: a tie, up
        ("float16", 0x7BFF, 0x4BFF, 0x7BFF),  # the largest plus not quite half a unit in its last place
        ("float16", 0x7BFF, 0x4C00, 0x7C00),  # the largest and half a unit
        ("float16", 0x0001, 0x0001, 0x0002),  # the smallest, twice
        ("float16", 0x03FF, 0x0001, 0x0400),  # the last subnormal and the first after it
        ("bfloat16", 0x4380, 0x3F80, 0x4380),  # 256 + 1
        ("bfloat16", 0x4381, 0x3F80, 0x4382),  # 258 + 1
        ("bfloat16", 0x7F7F, 0x7AFF, 0x7F7F),
        ("bfloat16", 0x7F7F, 0x7B00, 0x7F80),
        ("bfloat16", 0x0001, 0x0001, 0x0002),
        ("bfloat16", 0x007F, 0x0001, 0x0080),
    ],
)
def test_ties_go_to_even_and_too_large_sums_to_infinity(name: str, first: int, second: int, expected: int) -> None:
    assert reduce(SUM, bits(name, first), bits(name, second)).view(np.uint16) == expected


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_wrap(name: str) -> None:
    limits = np.iinfo(name)
    x = np.array([limits.max, limits.max, limits.min, limits.min], name)
    one = np.array([1, limits.max, limits.min, 0], name)
    modulus = 2**limits.bits
    expected = [(int(a) + int(b) - int(limits.min)) % modulus + int(limits.min) for a, b in zip(x, one, strict=True)]
    np.testing.assert_array_equal(reduce(SUM, x, one), np.array(expected, name))
    factors = np.array([3, limits.max, limits.min, limits.max], name)
    expected = [
        (int(a) * int(b) - int(limits.min)) % modulus + int(limits.min) for a, b in zip(x, factors, strict=True)
    ]
    np.testing.assert_array_equal(reduce(PROD, x, factors), np.array(expected, name))


def test_bool() -> None:
    """Any byte but 0 is True, as in NumPy; the result has only 0 and 1."""
    a, b = (x.reshape(-1) for x in np.indices((256, 256)).astype(np.uint8))
    both, either = (a != 0) & (b != 0), (a != 0) | (b != 0)
    for op in range(len(CALLS)):
        expected = either if op in (SUM, MAX, BOR) else both
        for inputs in ((a, b), (a, b, b), (a, a, a, b)):
            result = reduce(op, *(x.view(np.bool_) for x in inputs))
            np.testing.assert_array_equal(result.view(np.uint8), expected)


@pytest.mark.parametrize("name", REALS)
def test_nan_and_zeros_in_any_order(name: str) -> None:
    cases: tuple[tuple[int, tuple[float, ...], float], ...] = (
        (MAX, (0.0, -0.0), 0.0),
        (MIN, (0.0, -0.0), -0.0),
        (MAX, (-0.0, -0.0), -0.0),
        (MIN, (0.0, 0.0), 0.0),
        (MAX, (0.0, -0.0, -1.0), 0.0),
        (MIN, (0.0, -0.0, 1.0), -0.0),
        (MAX, (np.nan, np.inf), np.nan),
        (MIN, (np.nan, -np.inf), np.nan),
        (MAX, (1.0, np.nan, 2.0), np.nan),
        (MAX, (-np.inf, 1.0), 1.0),
        (MIN, (np.inf, 1.0), 1.0),
        (SUM, (np.inf, -np.inf), np.nan),
        (SUM, (np.inf, 1.0), np.inf),
        (SUM, (-0.0, -0.0), -0.0),
        (PROD, (np.inf, 0.0), np.nan),
        (PROD, (np.inf, -2.0), -np.inf),
        (PROD, (-0.0, 3.0), -0.0),
        (PROD, (-0.0, -1.0), 0.0),
        (PROD, (np.nan, 0.0, 1.0), np.nan),
    )
    for op, numbers, expected in cases:
        for order in itertools.permutations(numbers):
            inputs: Any = [np.full(3, number).astype(dtype_of(name)) for number in order]
            assert_numbers(parts(reduce(op, *inputs))[0], np.full(3, expected))


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_order(name: str) -> None:
    nan = complex(np.nan, np.nan)
    for largest, smallest, numbers in (
        (2 + 0j, 1 + 9j, (1 + 9j, 2 + 0j)),
        (1 + 9j, 1 + 1j, (1 + 1j, 1 + 9j, 1 + 2j)),
        (complex(0, 1), complex(-0.0, -1), (complex(0, 1), complex(-0.0, -1))),
        (complex(0, 1), complex(0, -1), (complex(0, -1), complex(0, 1))),
        (complex(0, 1), complex(-0.0, 1), (complex(0, 1), complex(-0.0, 1))),
        (complex(0, 0), complex(-0.0, -0.0), (complex(0, -0.0), complex(-0.0, 0))),
        (complex(np.inf, 1), complex(-np.inf, 1), (complex(-np.inf, 1), complex(np.inf, 1))),
        (nan, nan, (complex(np.nan, 1), 1 + 1j)),
        (nan, nan, (complex(1, np.nan), 2 + 1j)),
    ):
        for order in itertools.permutations(numbers):
            inputs = [np.array([number], name) for number in order]
            assert_numbers(reduce(MAX, *inputs), np.array([largest]).astype(name))
            assert_numbers(reduce(MIN, *inputs), np.array([smallest]).astype(name))


def test_real_sums_and_products_are_those_of_the_type() -> None:
    """float32 is not computed in float64, nor the other way round."""
    for name in ("float32", "float64"):
        inputs = [seeded(rank, 3).standard_normal(1000).astype(name) for rank in range(3)]
        np.testing.assert_array_equal(reduce(SUM, *inputs), (inputs[0] + inputs[1]) + inputs[2])
        np.testing.assert_array_equal(reduce(PROD, *inputs), (inputs[0] * inputs[1]) * inputs[2])


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_products_are_rounded_in_each_step(name: str) -> None:
    """Not fused, so that processors agree."""
    parts = [seeded(rank, 4).standard_normal((2, 1000)).astype(values(name, (), 0).real.dtype) for rank in range(3)]
    (re, im), *others = parts
    for a, b in others:
        re, im = re * a - im * b, re * b + im * a
    result = reduce(PROD, *((a + 1j * b).astype(name) for a, b in parts))
    np.testing.assert_array_equal(result.real, re)
    np.testing.assert_array_equal(result.imag, im)


@each_pair
def test_variants_give_the_same_bits(name: str, call: str, variant: str) -> None:
    """For random bits; a NaN stays a NaN, but which one is up to the processor."""
    op, dtype = _core.REDUCTION_NAMES.index(call), dtype_of(name)
    for count in (0, 1, 7, 8, 31, 33, BLOCK, 3 * BLOCK + 5):
        highest = 2 if name == "bool" else 256
        inputs = [seeded(count, i).integers(0, highest, count * dtype.itemsize, np.uint8).view(dtype) for i in range(3)]
        _core.use_kernels("plain")
        expected = reduce(op, *inputs)
        _core.use_kernels(variant)
        assert_numbers(reduce(op, *inputs), expected)


@pytest.mark.parametrize("name", [*REALS, *COMPLEX])
def test_division(name: str) -> None:
    """For all numbers in values, at every position in a block, with quotients that are not integers."""
    for count, n in itertools.product(COUNTS, (1, 2, 3, 7, 1000)):
        x = values(name, (count,), n).copy()
        expected = quotient(x, n)
        _core.divide_locally(x, n)
        assert_numbers(x, expected)


@pytest.mark.parametrize("name", HALVES)
def test_every_half_is_divided(name: str) -> None:
    for n in (1, 2, 3, 5, 48, 257):
        x = PATTERNS.copy().view(dtype_of(name))
        expected = quotient(x, n)
        _core.divide_locally(x, n)
        assert_numbers(x, expected)


@pytest.mark.parametrize("name", HALVES)
def test_every_half_is_widened(name: str) -> None:
    """Exactly; a NaN stays one."""
    for count in (2**16, 0, 1, 15, 16, 17, 63, 65):
        x, wide = PATTERNS[:count].view(dtype_of(name)), np.full(count + 1, 7, np.float32)
        _core.widen_locally(x, wide[:-1])
        assert_numbers(wide[:-1], x.astype(np.float32))
        assert wide[-1] == 7


# What narrowing finds hard: between two 16-bit floats, half of them ties; the ends of their ranges; zeros; NaN.
BETWEEN = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
ENDS = {
    "float16": (2.0**-24, 2.0**-14, 65504.0, 65520.0),
    "bfloat16": (2.0**-133, 2.0**-126, 2.0**128 - 2.0**120, 2.0**128 - 2.0**119),
}


def hard(name: str) -> np.ndarray:
    with np.errstate(all="ignore"):
        every = PATTERNS.view(dtype_of(name)).astype(np.float64)
        halfway = every[np.isfinite(every)] * (1 + BETWEEN[name])
        ends = [end * factor for end in ENDS[name] for factor in (0.25, 0.5, 0.75, 1, 1.5, 2)]
        numbers = np.concatenate([every, halfway, ends, np.negative(ends)]).astype(np.float32)
        beside = [np.nextafter(numbers, np.float32(limit)) for limit in (-np.inf, np.inf)]
    random = seeded(3, len(name)).integers(0, 2**32, 100_003, np.uint32).view(np.float32)
    return np.concatenate([numbers, *beside, random])


@pytest.mark.parametrize("name", HALVES)
def test_narrowing(name: str) -> None:
    """Rounded to nearest even, beyond the largest to infinity; a NaN stays a quiet NaN of its sign."""
    x = hard(name)
    narrowed = np.zeros(x.size, dtype_of(name))
    _core.narrow_locally(x, narrowed)
    with np.errstate(all="ignore"):
        expected = rounded(x.astype(np.float64), name)
        assert (expected != x).mean() > 0.5  # there is something to round
        assert_numbers(parts(narrowed)[0], expected)
        assert_numbers(narrowed, x.astype(dtype_of(name)))  # NumPy and ml_dtypes
    nan, found = np.isnan(x), narrowed.view(np.uint16)
    assert nan.any()
    assert (found[nan] & QUIET[name]).all()
    np.testing.assert_array_equal(found >> 15, x.view(np.uint32) >> 31)
    for count in (0, 1, 15, 16, 17, 63, 65):
        part = np.full(count + 1, 7, dtype_of(name))
        _core.narrow_locally(x[:count], part[:-1])
        assert part[:-1].tobytes() == narrowed[:count].tobytes()
        assert part[-1] == 7


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc/cpuinfo")
def test_the_best_are_used() -> None:
    assert _core.use_kernels("") == best_kernels()


def test_unknown_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[init\] there are no kernels 'abacus' .*plain"):
        _core.use_kernels("abacus")
