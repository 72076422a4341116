"""Schedules against their closed forms."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from utils.config.schedule import (
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    LinearSchedule,
    Schedule,
    ScheduleConfig,
    StepsSchedule,
    constant,
)

PROGRESS = st.floats(0, 1)
SCHEDULE: TypeAdapter[ScheduleConfig] = TypeAdapter(Schedule)


@given(PROGRESS)
def test_constant_and_linear(p: float) -> None:
    assert ConstantSchedule(value=3)(p) == 3
    assert LinearSchedule(start=2, end=-6)(p) == pytest.approx(2 - 8 * p)
    part = LinearSchedule(start=1, end=5, begin=0.25, until=0.75)(p)
    assert part == pytest.approx(1 if p < 0.25 else 5 if p > 0.75 else 1 + 4 * (p - 0.25) / 0.5)


@given(PROGRESS)
def test_exponential_is_geometric(p: float) -> None:
    schedule = ExponentialSchedule(start=5e-4, end=5e-6)
    assert schedule(p) == pytest.approx(5e-4 * 100**-p)
    assert schedule(p / 2) == pytest.approx(math.sqrt(schedule(0) * schedule(p)))


@given(PROGRESS)
def test_exponential_may_be_held_back(p: float) -> None:
    late, plain = ExponentialSchedule(start=2, end=0.5, delay=0.2), ExponentialSchedule(start=2, end=0.5)
    factor = 1 if p >= 0.2 else 0.01 + 0.99 * math.sin(math.pi / 2 * p / 0.2)
    assert late(p) == pytest.approx(plain(p) * factor) and late(0) == pytest.approx(0.02)


@given(PROGRESS)
def test_cosine_warms_up_and_comes_down(p: float) -> None:
    got = CosineSchedule(start=2, end=0.5, warmup=0.2)(p)
    angle = math.pi * (p - 0.2) / 0.8
    assert got == pytest.approx(10 * p if p < 0.2 else 1.25 + 0.75 * math.cos(angle), abs=1e-12)
    assert CosineSchedule(start=2)(p) == pytest.approx(1 + math.cos(math.pi * p), abs=1e-12)


def test_steps_change_at_their_progress() -> None:
    schedule = StepsSchedule(start=1, factor=0.5, at=(0.5, 0.75))
    assert [schedule(p) for p in (0, 0.499, 0.5, 0.7, 0.75, 1)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    ("schedule", "first", "last"),
    [
        (LinearSchedule(start=0.1, end=0.7), 0.1, 0.7),
        (CosineSchedule(start=0.1, end=0.7), 0.1, 0.7),
        (CosineSchedule(start=0.1, end=0.7, warmup=0.3), 0.0, 0.7),
        (ExponentialSchedule(start=0.1, end=0.7), 0.1, 0.7),
        (StepsSchedule(start=0.5, factor=0.5, at=(0.0, 1.0)), 0.25, 0.125),
    ],
)
def test_ends_are_exact_and_hold_outside(schedule: ScheduleConfig, first: float, last: float) -> None:
    assert schedule(0) == schedule(-0.5) == first
    assert schedule(1) == schedule(1.5) == last


def test_a_number_is_the_constant_schedule() -> None:
    assert SCHEDULE.validate_python(0.25) == constant(0.25) == SCHEDULE.validate_json("0.25")
    assert SCHEDULE.dump_python(constant(0.25)) == 0.25
    linear = SCHEDULE.validate_python({"type": "linear", "start": 1, "end": 2})
    assert linear == LinearSchedule(start=1, end=2)
    assert SCHEDULE.validate_python(SCHEDULE.dump_python(linear)) == linear


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (True, "a number or a mapping"),
        ("0.5", "a number or a mapping"),
        ({"type": "linear", "start": 0, "end": 1, "begin": 0.5, "until": 0.5}, "less than `until`"),
        ({"type": "linear", "start": 0, "end": 1, "until": 1.5}, "less than or equal to 1"),
        ({"type": "cosine", "start": 1, "warmup": 1}, "less than 1"),
        ({"type": "exponential", "start": 0, "end": 1}, "greater than 0"),
        ({"type": "steps", "start": 1, "factor": 0.1, "at": [0.6, 0.5]}, "should ascend"),
        ({"type": "sinus"}, "unknown type; choices: constant, cosine, exponential, linear, steps"),
        ({"start": 1}, "`type` is missing"),
    ],
)
def test_senseless_schedules_are_refused(value: object, what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        SCHEDULE.validate_python(value)
