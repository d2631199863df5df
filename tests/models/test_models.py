"""Models of the protocols in shared memory, checked by spin: `make models`.

The head of each model says what it models, its settings and its properties.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COMPILE = ("-w", "-DSAFETY", "-DCOLLAPSE", "-DMEMLIM=1800")
TIMEOUT_S = 90
DEADLOCK = "invalid end state"

# All properties hold in every state that can be reached.
HOLDS = (
    ("arrival", "RANKS=3 ARRIVALS=3"),
    ("arrival", "RANKS=3 ARRIVALS=2 COMMIT=2 IMPATIENT=1"),
    ("arrival", "RANKS=3 ARRIVALS=1 COMMIT=2 IMPATIENT=3 VICTIMS=4"),
    ("arrival", "RANKS=2 ARRIVALS=4 COMMIT=12 IMPATIENT=3 QUITTERS=3"),
    ("arrival", "RANKS=2 ARRIVALS=3 COMMIT=6 IMPATIENT=3 QUITTERS=3 VICTIMS=3"),
    ("arrival", "RANKS=2 ARRIVALS=3 COMMIT=4 IMPATIENT=1 QUITTERS=2 DIFFER=2"),
    ("pipeline", "RANKS=3"),
    ("pipeline", "RANKS=3 OTHERS=3 IMPATIENT=1"),
    ("pipeline", "RANKS=3 PIECES=2 PIECES2=1 IMPATIENT=2 VICTIMS=1"),
    ("pipeline", "RANKS=2 OTHERS=1 IMPATIENT=3 VICTIMS=3"),
    ("pipeline", "RANKS=2 OTHERS=2 IMPATIENT=3 VICTIMS=3"),
    ("symmetric", "RANKS=2 IMPATIENT=3 VICTIMS=3"),
    ("symmetric", "RANKS=2 IMPATIENT=3 VICTIMS=3 IN_PLACE=1"),
    ("symmetric", "RANKS=3 IMPATIENT=1"),
    ("symmetric", "RANKS=3 VICTIMS=2 IN_PLACE=1"),
)

# Settings that violate a property, and which one.
FAILS = (
    ("arrival", "SLOTS=1", "nobody_reads_it|payload_is_current"),
    ("arrival", "COMMIT=2 IMPATIENT=1 CONSENSUS=0", "all_or_none"),
    ("pipeline", "SLOTS=2", "nobody_reads_it|chunk_is_there"),
    ("pipeline", "OTHERS=3 SLOTS=1", "nobody_reads_it|chunk_is_there"),
    ("symmetric", "RANKS=2 IMPATIENT=1 DETACH=0", "input_is_read|caller_is_left_alone"),
)

# Mistakes that could be made in the code: model, settings, what it says, what it says with the mistake, the property.
MISTAKES = {
    "arrival-announced-before-copied-in": (
        "arrival",
        "RANKS=2",
        "copy_in();\n    arrived[slot(me, k)] = k;",
        "arrived[slot(me, k)] = k;\n    copy_in();",
        "payload_is_current",
    ),
    "arrival-before-is-awaited": (
        "arrival",
        "RANKS=2",
        "(arrived[slot(i, k)] >= k)",
        "(arrived[slot(i, k)] + SLOTS >= k)",
        "payload_is_current",
    ),
    "gone-on-and-left-is-given-up": (
        "arrival",
        "RANKS=3 ARRIVALS=1",
        "!commit && has_arrived(i) && seen != JOINED",
        "false",
        "there_is_a_reason",
    ),
    "decided-twice": (
        "arrival",
        "RANKS=2 COMMIT=2 IMPATIENT=1",
        "consensus / 2 < k ->",
        "consensus / 2 <= k ->",
        "all_or_none",
    ),
    "later-decision-is-taken-for-this": (
        "arrival",
        "RANKS=2 COMMIT=6 IMPATIENT=3",
        "(consensus / 2 == k && consensus % 2)",
        "(consensus % 2)",
        "all_or_none",
    ),
    "timed-out-while-others-go-on": (
        "arrival",
        "RANKS=2 COMMIT=2 IMPATIENT=1",
        "result != OK -> peer_died()",
        "result != OK",
        "all_or_none",
    ),
    "decision-is-not-atomic": (
        "arrival",
        "RANKS=2 ARRIVALS=1 COMMIT=2 IMPATIENT=1",
        ":: atomic { consensus / 2 < k -> consensus = 2 * k + to_give_up; break }",
        ":: consensus / 2 < k -> consensus = 2 * k + to_give_up; break",
        "all_or_none",
    ),
    "gone-on-and-left-is-dead": (
        "arrival",
        "RANKS=2 ARRIVALS=1 COMMIT=2 IMPATIENT=1",
        "!lives[i] && state[i] != LEFT",
        "!lives[i]",
        "all_or_none",
    ),
    "calls-not-compared": (
        "arrival",
        "RANKS=2 DIFFER=1",
        "DIFFER == k -> result",
        "false -> result",
        "calls_are_the_same",
    ),
    "gives-up-in-silence": ("arrival", "RANKS=2 IMPATIENT=1", "state[me] = GAVE_UP; ", "", DEADLOCK),
    "nobody-looks-who-died": ("arrival", "RANKS=2 VICTIMS=1", "bit(news, me) ->", "false ->", DEADLOCK),
    "mapping-not-replaced": (
        "symmetric",
        "RANKS=2 IMPATIENT=1",
        "    is_replaced[me] = true;\n",
        "",
        "input_is_read",
    ),
    "output-still-shared": (
        "symmetric",
        "RANKS=2 IMPATIENT=1",
        "-> own(OUT, i); i++",
        "-> i++",
        "caller_is_left_alone",
    ),
    "others-not-awaited-at-the-end": ("symmetric", "RANKS=2", "        arrive(2);\n", "", "result_is_complete"),
    "chunk-announced-before-copied-in": (
        "pipeline",
        "RANKS=2",
        "copy_in_and_out(true, 0, false, 0);\n    announce(COPIED_IN, 1);",
        "announce(COPIED_IN, 1);\n    copy_in_and_out(true, 0, false, 0);",
        "chunk_is_there",
    ),
    "chunk-announced-before-reduced": (
        "pipeline",
        "RANKS=2",
        "reduce_share();\n        announce(REDUCED, k + 1);",
        "announce(REDUCED, k + 1);\n        reduce_share();",
        "chunk_is_there",
    ),
    "chunk-before-is-awaited": (
        "pipeline",
        "RANKS=2",
        "await(COPIED_IN, k + 1)",
        "await(COPIED_IN, k)",
        "chunk_is_there",
    ),
    "slot-used-again-without-waiting": (
        "pipeline",
        "RANKS=2",
        "k > 0 -> await(REDUCED, k)",
        "k > 0",
        "nobody_reads_it|chunk_is_there",
    ),
    "last-chunk-not-awaited": ("pipeline", "RANKS=2", "    await(REDUCED, pieces);\n", "", "chunk_is_there"),
    "other-call-does-not-wait": (
        "pipeline",
        "RANKS=2 OTHERS=3",
        "k > 0 -> await(COPIED_IN, k)",
        "k > 0",
        "nobody_reads_it|chunk_is_there",
    ),
    "chunks-of-calls-overlap": (
        "pipeline",
        "RANKS=2",
        "base = base + pieces + 1",
        "base = base + pieces",
        "chunk_is_there",
    ),
    "no-arrival-between-calls": (
        "pipeline",
        "RANKS=2",
        "            arrive();\n",
        "",
        "nobody_reads_it|chunk_is_there",
    ),
    "finished-and-left-is-given-up": (
        "pipeline",
        "RANKS=3 PIECES=1 PIECES2=1",
        "progress(stage, next) < chunk(n) && found",
        "found",
        "there_is_a_reason",
    ),
    "gives-up-a-call-in-silence": ("pipeline", "RANKS=2 IMPATIENT=1", "state[me] = GAVE_UP; ", "", DEADLOCK),
}


def check(folder: Path, model: str, settings: str, optimize: str = "-O0") -> str:
    """What spin's program prints, which goes through all states or stops at the first violation."""
    defined = [f"-D{setting}" for setting in settings.split()]
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if not shutil.which("spin") or not compiler:
        pytest.skip(f"there is no {'C compiler' if shutil.which('spin') else 'spin'} here")
    (folder / "model.pml").write_text(model)
    output = ""
    for command in (
        ["spin", "-a", *defined, "model.pml"],
        [compiler, optimize, *COMPILE, "-o", "pan", "pan.c"],
        ["./pan", "-m100000"],
    ):
        ran = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S
        )
        output = ran.stdout
        assert ran.returncode == 0, output
    return output


def violated(output: str) -> str:
    """The property that is violated; empty if all hold."""
    assert "not completed" not in output or "errors: 1" in output, output
    assert "too small" not in output, output
    found = re.search(r"^pan:1: (?:assertion violated )?(.*) \(at depth", output, re.MULTILINE)
    assert found or "errors: 0" in output, output
    return found.group(1) if found else ""


@pytest.mark.parametrize(("model", "settings"), HOLDS)
def test_holds(tmp_path: Path, model: str, settings: str) -> None:
    if found := violated(check(tmp_path, (HERE / f"{model}.pml").read_text(), settings, "-O2")):
        steps = subprocess.run(["spin", "-t", "-p", "-g", "model.pml"], cwd=tmp_path, capture_output=True, text=True)
        pytest.fail(f"{found} is violated after these steps:\n{steps.stdout}")


@pytest.mark.parametrize(("model", "settings", "expected"), FAILS)
def test_fails(tmp_path: Path, model: str, settings: str, expected: str) -> None:
    assert re.fullmatch(expected, violated(check(tmp_path, (HERE / f"{model}.pml").read_text(), settings)))


@pytest.mark.parametrize(("model", "settings", "right", "wrong", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_found(tmp_path: Path, model: str, settings: str, right: str, wrong: str, expected: str) -> None:
    text = (HERE / f"{model}.pml").read_text()
    assert text.count(right) == 1
    assert re.fullmatch(expected, violated(check(tmp_path, text.replace(right, wrong), settings)))
