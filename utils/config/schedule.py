"""Numbers that change during a run, as functions of its progress: the share of the budget that is used."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, field_validator, model_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from utils.config.parts import MOST, ChoiceMarker, Part, choose

Share = Annotated[float, Field(ge=0, le=1)]


class ScheduleConfig(Part):
    """A number as a function of progress in [0, 1]; outside of that it stays at the end's value."""

    def __call__(self, progress: float) -> float:
        """The number at `progress`, the share of the run's steps or minutes that is used."""
        return self.at_share(min(max(progress, 0.0), 1.0))

    @abstractmethod
    def at_share(self, p: float) -> float:
        """The number at p, which lies in [0, 1]."""


class ConstantSchedule(ScheduleConfig):
    """`value`, always."""

    type: Literal["constant"] = "constant"
    value: float

    def at_share(self, p: float) -> float:
        return self.value


class LinearSchedule(ScheduleConfig):
    """From `start` to `end` on a straight line between progress `begin` and `until`, constant around it."""

    type: Literal["linear"] = "linear"
    start: float
    end: float
    begin: Share = 0.0
    until: Share = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> LinearSchedule:
        if self.begin >= self.until:
            raise ValueError("`begin` should be less than `until`")
        return self

    def at_share(self, p: float) -> float:
        q = min(max((p - self.begin) / (self.until - self.begin), 0.0), 1.0)
        return (1 - q) * self.start + q * self.end


class CosineSchedule(ScheduleConfig):
    """Up from 0 to `start` during the share `warmup`, then down to `end` on half a cosine."""

    type: Literal["cosine"] = "cosine"
    start: float
    end: float = 0.0
    warmup: float = Field(default=0.0, ge=0, lt=1)

    def at_share(self, p: float) -> float:
        if p < self.warmup:
            return self.start * p / self.warmup
        q = (1 - math.cos(math.pi * (p - self.warmup) / (1 - self.warmup))) / 2
        return (1 - q) * self.start + q * self.end


class ExponentialSchedule(ScheduleConfig):
    """From `start` to `end` by an equal factor for equal progress.

    Until progress `delay` also times a factor that rises from `delay_factor` to 1 on a quarter of a sine: Barron et
    al., "Mip-NeRF" (2021), the rates of its published code.
    """

    type: Literal["exponential"] = "exponential"
    start: float = Field(gt=0)
    end: float = Field(gt=0)
    delay: float = Field(default=0.0, ge=0, lt=1)
    delay_factor: float = Field(default=0.01, gt=0, le=1)

    def at_share(self, p: float) -> float:
        return float(self.start ** (1 - p) * self.end**p) * self._held_back(p)

    def _held_back(self, p: float) -> float:
        if p >= self.delay:
            return 1.0
        return self.delay_factor + (1 - self.delay_factor) * math.sin(0.5 * math.pi * p / self.delay)


class StepsSchedule(ScheduleConfig):
    """`start`, multiplied by `factor` at each of the progresses `at`."""

    type: Literal["steps"] = "steps"
    start: float
    factor: float
    at: tuple[Share, ...]

    @field_validator("at")
    @classmethod
    def _ascending(cls, at: tuple[float, ...]) -> tuple[float, ...]:
        if list(at) != sorted(set(at)):
            raise ValueError("should ascend")
        return at

    @model_validator(mode="after")
    def _stays_a_number(self) -> StepsSchedule:
        # In logarithms, since a power that no float holds raises.
        size = math.log10(max(abs(self.factor), 1.0)) * len(self.at) + math.log10(max(abs(self.start), 1.0))
        if size > math.log10(MOST):
            raise ValueError(f"grows beyond {MOST:g}")
        return self

    def at_share(self, p: float) -> float:
        return float(self.start * self.factor ** sum(p >= share for share in self.at))


class _ScheduleMarker(ChoiceMarker):
    """A choice of schedules in which a plain number is written and read as the constant one."""

    def __get_pydantic_core_schema__(self, kind: type[Part], handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = super().__get_pydantic_core_schema__(kind, handler)
        schema["serialization"] = core_schema.plain_serializer_function_ser_schema(_dump, info_arg=True)  # type: ignore[index]
        return schema

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"type": "number"}, super().__get_pydantic_json_schema__(schema, handler)]}

    def validate(self, kind: type[Part], value: Any, info: core_schema.ValidationInfo) -> Part:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return constant(value)
        if not isinstance(value, (ScheduleConfig, Mapping)):
            raise PydanticCustomError("not_a_schedule", "should be a number or a mapping with a `type`")
        return choose(kind, value, info)


def _dump(schedule: ScheduleConfig, info: core_schema.SerializationInfo) -> float | dict[str, Any]:
    if isinstance(schedule, ConstantSchedule):
        return schedule.value
    return schedule.model_dump(mode=info.mode)


def constant(value: float) -> ScheduleConfig:
    """The schedule that a plain number means."""
    return ConstantSchedule(value=value)


Schedule = Annotated[ScheduleConfig, Field(validate_default=True), _ScheduleMarker()]
