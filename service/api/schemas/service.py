"""The documents of health and of problems."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Health(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: Literal["ok"]


class Problem(BaseModel):
    """RFC 9457, with a stable `code`, what to do (`remedy`), and the facts by name."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    remedy: str
    facts: dict[str, Any]
    instance: str
