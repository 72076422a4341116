"""What every optimizer offers: keys of a config, and a rule by which the parameters of a group are moved."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from inspect import unwrap
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, ValidationError, WithJsonSchema, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError
from torch import Tensor

from models.optimizers.plateau import PlateauConfig
from utils.config.mistakes import did_you_mean
from utils.config.parts import CHOICE_MARK, Part, parts
from utils.config.schedule import Schedule, constant
from utils.config.schema import LATER

OF_THE_RUN = ("parts", "reduce_on_plateau", "gradient_clip")  # keys that no entry of `parts` has
Beta = Annotated[float, Field(ge=0, lt=1)]  # share of a moment that a step keeps
# A learning rate, or a mapping with any of `type`, `lr`, `schedule` and the type's own keys, as it was written.
Entry = Annotated[
    Annotated[float, Field(gt=0)] | dict[str, Any],
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {CHOICE_MARK: "OptimizerConfig"}], LATER: True}
    ),
]


class OptimizerConfig(Part):
    """An update rule, its learning rate, and the parts of the model for which something else holds.

    A subclass is an update rule; what it adds are the type's own keys.
    """

    default_type: ClassVar[str | None] = "adam"
    moments: ClassVar[int] = 2  # numbers that are kept for each of a parameter

    lr: float = Field(5e-4, gt=0, description="learning rate of everything not named in `parts`")
    parts: dict[str, Entry] = Field(
        {}, description="by the start of a parameter's name: a learning rate, or type, lr, schedule and the type's keys"
    )
    schedule: Schedule = Field(constant(1.0), description="multiplies the learning rate; a part may have its own")
    reduce_on_plateau: PlateauConfig | None = Field(None, description="reduce all rates when the loss stays put")
    gradient_clip: float | None = Field(None, gt=0, description="largest norm of the gradient")

    @model_validator(mode="after")
    def _parts_are_optimizers(self) -> Self:
        found = [line for name, entry in self.parts.items() for line in self._mistakes(name, entry)]
        if found:
            raise ValidationError.from_exception_data(type(self).__name__, found)
        return self

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """As pydantic's; raises all mistakes at once, in the entries of `parts` too where other keys have some."""
        try:
            return super().model_validate_json(json_data, **options)
        except ValidationError as errors:
            entries = json.loads(json_data).get("parts")
            found = list(_lines(errors))
            known = [line["loc"] for line in found]
            for name, entry in entries.items() if isinstance(entries, dict) else ():
                found += [line for line in cls.model_construct()._mistakes(name, entry) if line["loc"] not in known]
        raise ValidationError.from_exception_data(cls.__name__, found)

    def of_part(self, entry: float | Mapping[str, Any] | None) -> OptimizerConfig:
        """What holds for an entry of `parts`, or, with None, for everything else; its own `parts` are empty.

        Inherited are the keys of the nearest class that both rules are of: rate and schedule, and where the type is the
        same its own keys. Raises pydantic's errors.
        """
        if not isinstance(entry, Mapping):
            lr = self.lr if entry is None else float(entry)
            return self.model_copy(update={"lr": lr, **_nothing_of_the_run()})
        own = self.model_dump(mode="json", exclude=set(OF_THE_RUN))
        given = {"type": own["type"], **entry}
        rule = parts(OptimizerConfig)[given["type"]]
        kinds = (kind for kind in type(self).__mro__ if issubclass(kind, OptimizerConfig))
        both = next(kind for kind in kinds if issubclass(rule, kind))
        shared = {key: value for key, value in own.items() if key in both.model_fields}
        return rule.model_validate_json(json.dumps(shared | given), strict=True)

    def _mistakes(self, name: str, entry: object) -> Iterator[InitErrorDetails]:
        """What is wrong with an entry of `parts` that is a mapping, key by key."""
        if not isinstance(entry, Mapping):
            return
        chosen, known = entry.get("type", self.model_dump()["type"]), parts(OptimizerConfig)
        if chosen not in known:
            context = {"listed": ", ".join(known), "choices": list(known)}
            error = PydanticCustomError("unknown_type", "unknown type; choices: {listed}", context)
            yield InitErrorDetails(type=error, loc=("parts", name, "type"), input=chosen)
            return
        keys = sorted(set(known[chosen].model_fields) - set(OF_THE_RUN))
        for key in (key for key in entry if key not in keys):
            hint = did_you_mean(key, keys) or f"; known here: {', '.join(keys)}"
            said = f"no key of an entry of type {chosen}{hint}"
            yield InitErrorDetails(type=PydanticCustomError("no_key", said), loc=("parts", name, key), input=None)
        try:
            self.of_part({key: entry[key] for key in entry if key in keys})
        except ValidationError as errors:
            yield from _lines(errors, "parts", name)

    def build(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        """The rule for `groups`, mappings with `params` and `lr` as torch's optimizers take them."""
        raise TypeError("an optimizer config says how it is built")


class MomentsConfig(OptimizerConfig):
    """A rule that moves by the first moment over the root of the second."""

    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)


def _lines(errors: ValidationError, *within: str) -> Iterator[InitErrorDetails]:
    """The lines of a validation error, as such of what lies `within` another value."""
    for detail in errors.errors(include_url=False):
        error = PydanticCustomError(detail["type"], detail["msg"], detail.get("ctx"))
        yield InitErrorDetails(type=error, loc=(*within, *detail["loc"]), input=detail["input"])


def _nothing_of_the_run() -> dict[str, Any]:
    return {key: OptimizerConfig.model_fields[key].get_default(call_default_factory=True) for key in OF_THE_RUN}


class Uncompiled(torch.optim.Optimizer):
    """An optimizer whose methods torch does not keep from its compiler, which nothing here uses.

    Torch does so at the first call, by an import that takes 1.5 seconds and 60 MB of every start.
    """

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)


class UpdateRule(Uncompiled):
    """A rule that reads `found_inf` [] float on the device of its parameters: above 0 a step changes nothing.

    Any optimizer of torch is a rule too; on a GPU one without `found_inf` has the host wait for it at each step.
    """

    found_inf: Tensor | None = None

    def fresh_state(self, parameter: Tensor) -> dict[str, Tensor]:
        """What is kept of a parameter [*N] before its first step, by name, on its device."""
        raise TypeError("an update rule says what it keeps")


def found_inf_flag(found_inf: Tensor | None, device: torch.device) -> Tensor:
    """[1] float32 on `device`, as kernels read it: `found_inf` [], or zero for None."""
    if found_inf is None:
        return torch.zeros(1, device=device)
    return found_inf.view(1)
