"""Text that fits a pattern; who writes another one is shown some that would do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


@dataclass(frozen=True)
class TextLike:
    """Marks a field of a config, as `Annotated[str, TextLike(...)]`: text that the whole pattern fits."""

    pattern: str
    examples: tuple[str, ...]

    @property
    def expected(self) -> str:
        """What may be written, in words."""
        return f"one like {', '.join(self.examples)}"

    def fits(self, text: str) -> bool:
        """Whether the pattern fits the whole text."""
        return re.fullmatch(self.pattern, text) is not None

    def core_schema(self) -> CoreSchema:
        """How pydantic validates such text."""
        return core_schema.no_info_after_validator_function(self._checked, core_schema.str_schema())

    def _checked(self, text: str) -> str:
        if not self.fits(text):
            raise PydanticCustomError("text_like", "should be {words}", {"words": self.expected})
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return self.core_schema()

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^({self.pattern})$", "examples": list(self.examples)}


DEVICE = TextLike(r"auto|cpu|cuda(:[0-9]{1,9})?", ("auto", "cpu", "cuda", "cuda:1"))
MEMORY = TextLike(r"auto|[0-9]{1,9}(\.[0-9]{1,9})?[KMGT]", ("auto", "16G", "1.5T"))
