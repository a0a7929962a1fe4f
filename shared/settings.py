"""How both tiers read their settings: environment variables, once, with a message that names the variable at fault.

A setting's variable is its field's name in capitals. Only `__main__` builds settings and passes them in.
"""

import sys
from typing import Literal, NoReturn, TypeVar

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

EXIT_CONFIGURATION = 2
"""Exit code of a start that bad settings stopped."""


class EnvironmentSettings(BaseSettings):
    """Base of every settings class: frozen, from the environment only, empty variables count as absent."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="Least level logged")

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore", case_sensitive=False)

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value


S = TypeVar("S", bound=EnvironmentSettings)


def load(kind: type[S]) -> S:
    """Read the settings from the environment, or leave the process with one line for each variable at fault.

    Raises:
        SystemExit: with EXIT_CONFIGURATION; the messages stand on standard error.

    """
    try:
        return kind()
    except ValidationError as error:
        for line in problems(error):
            print(f"error: {line}", file=sys.stderr)  # noqa: T201 - logging is not set up before the settings are
        raise SystemExit(EXIT_CONFIGURATION) from None


def problems(error: ValidationError) -> list[str]:
    """One line a variable at fault: its name, what is wrong, and the value it had (never a secret's)."""
    lines = []
    for item in error.errors(include_url=False):
        name = "_".join(str(part) for part in item["loc"]).upper()
        message = item["msg"].removeprefix("Value error, ")
        shown = item.get("input")
        secret = any(word in name for word in ("PASSWORD", "SECRET", "TOKEN"))
        if not item["loc"]:
            lines.append(message)
        elif item["type"] == "missing":
            lines.append(f"{name} is required and not set")
        elif secret or not isinstance(shown, str | int | float):
            lines.append(f"{name}: {message}")
        else:
            lines.append(f"{name}: {message} (got {shown!r})")
    return lines


def stop(message: str, code: int = 1) -> NoReturn:
    """Leave the process with one clear line on standard error.

    Raises:
        SystemExit: always, with `code`.

    """
    print(f"error: {message}", file=sys.stderr)  # noqa: T201 - the last word of a process that cannot go on
    raise SystemExit(code)


def describe(kind: type[EnvironmentSettings]) -> str:
    """The variables of a settings class for `--help`: one line each with its default and what it means."""
    lines = []
    for name, field in sorted(kind.model_fields.items()):
        default = "required" if field.is_required() else f"default {field.default}"
        lines.append(f"  {name.upper():<28} {field.description} ({default})")
    return "\n".join(lines)
