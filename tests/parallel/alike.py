"""Examples of Hypothesis that all ranks draw alike.

The first failure is printed with its rank and ends the job: Hypothesis would repeat the example, and the other ranks
would not take part.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import strategies as st

import mlxdist as dist

alike_everywhere = hypothesis.settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=40,
    phases=(hypothesis.Phase.generate,),
    report_multiple_bugs=False,
    suppress_health_check=list(hypothesis.HealthCheck),
)


class Failed(BaseException):
    """An exception that Hypothesis does not catch."""


def drawn(**strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """Run a test with examples drawn from these."""

    def decorate(test: Callable[..., None]) -> Any:
        @functools.wraps(test)
        def run(world: dist.Group, **example: Any) -> None:
            try:
                test(world, **example)
            except Exception as error:
                raise Failed(f"{test.__name__} {example}: {error}") from error

        return alike_everywhere(hypothesis.given(**strategies)(run))

    return decorate
