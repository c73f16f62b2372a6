"""Reads a service's settings from environment variables, all faults in one message.

A service declares a subclass of `Settings`; a field `jwt_secret` is the variable `JWT_SECRET`.
A `Secret` prints as `<secret>`. It may come from a file as well, named by the variable with `_FILE`
behind it (as container images have it), and so may a field marked with FILE_ALLOWED. An empty
variable counts as unset, as `${NAME:-}` in a compose file makes one.

`python -m services.<service>.settings` prints them, each with its origin: `print_settings`.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, Self, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic.fields import FieldInfo

EXIT_BAD_SETTINGS = 78  # EX_CONFIG of sysexits(3)
_SECRET_FILE_BYTES_MAX = 65_536
FILE_ALLOWED = object()
"""In a field's annotation: the value may hold a secret, so it may come from a file."""

Port = Annotated[int, Field(ge=1, le=65_535)]


class SettingsError(Exception):
    """One or more settings are wrong; the text has a line for each, saying what to do."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Secret(SecretStr):
    """A text that shows as `<secret>` wherever it is printed."""

    def _display(self) -> str:
        return "<secret>" if self.get_secret_value() else ""


@dataclass(frozen=True)
class Setting:
    """One setting as it may be shown."""

    variable: str
    value: str
    """`<secret>` in place of one; empty when it is not set."""
    origin: str
    description: str


class Settings(BaseModel):
    """What every process is told: how to log. Frozen; unknown variables are not its business."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    log_format: Literal["console", "json"] = Field(
        default_factory=lambda: "console" if sys.stdout.isatty() else "json",
        description="console for people, json for machines",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least severe level that is logged"
    )

    @classmethod
    def variables(cls) -> list[str]:
        """The names of all variables that are read."""
        fields = cls.model_fields.items()
        return [variable for name, field in fields for variable in _names(name, field)]

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Builds the settings from `environ`.

        Raises:
            SettingsError: with one line for each variable that is missing or wrong.
        """
        faults: list[str] = []
        values: dict[str, str] = {}
        for name, field in cls.model_fields.items():
            variable = name.upper()
            value = environ.get(variable, "")
            if not value and _may_be_in_a_file(field):
                value = _from_file(variable + "_FILE", environ, faults)
            if value:
                values[name] = value
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            told = {fault.split("_FILE", 1)[0] for fault in faults}
            faults += [
                _fault(cls, item, values)
                for item in error.errors(include_url=False, include_input=False)
                if _variable(item) not in told
            ]
        if faults:
            raise SettingsError(faults)
        return settings

    @classmethod
    def explain(cls, origins: Mapping[str, Mapping[str, str]]) -> list[Setting]:
        """Each setting of a service; the first of `origins` that has the variable decides.

        As with process-compose an empty variable hides what a later origin has, and is then unset.
        """
        return [
            _explain(_names(name, field), field, origins)
            for name, field in cls.model_fields.items()
        ]


def _ip_address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("an IP address, such as 127.0.0.1, 0.0.0.0, ::1 or ::") from None
    return text


def _host_names(text: str) -> str:
    if not all(re.fullmatch(r"[A-Za-z0-9.-]+", name) for name in text.split()):
        raise ValueError("names without scheme and port, with spaces between")
    return text


class HttpSettings(Settings):
    """What a process that answers HTTP is told."""

    http_port: Port = Field(description="the port to listen on")
    http_host: Annotated[str, AfterValidator(_ip_address)] = Field(
        default="127.0.0.1", description="the address to listen on"
    )
    allowed_hosts: Annotated[str, AfterValidator(_host_names)] = Field(
        default="", description="names to answer for besides the loopback's, with spaces between"
    )
    workers: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="worker processes that answer requests"
    )

    def hosts(self) -> re.Pattern[str]:
        """What the Host header may be.

        Beyond the loopback that is any IP address as well: health checks of container platforms
        have no name to ask for, and DNS rebinding cannot do without one.
        """
        hosts = [r"localhost", r"platform\.localhost", r"127(\.\d{1,3}){3}", r"\[::1\]"]
        if not ipaddress.ip_address(self.http_host).is_loopback:
            hosts += [r"\d{1,3}(\.\d{1,3}){3}", r"\[[0-9a-f:.]+\]"]
        hosts += map(re.escape, self.allowed_hosts.split())
        return re.compile(rf"({'|'.join(hosts)})(:\d{{1,5}})?", re.IGNORECASE | re.ASCII)


def _names(name: str, field: FieldInfo) -> list[str]:
    variable = name.upper()
    return [variable, variable + "_FILE"] if _may_be_in_a_file(field) else [variable]


def _may_be_in_a_file(field: FieldInfo) -> bool:
    return _is_secret(field.annotation) or FILE_ALLOWED in field.metadata


def _is_secret(annotation: Any) -> bool:
    return annotation is Secret or Secret in get_args(annotation)


def _from_file(variable: str, environ: Mapping[str, str], faults: list[str]) -> str:
    path = environ.get(variable, "")
    if not path:
        return ""
    try:
        with Path(path).open(encoding="utf-8") as file:
            return file.read(_SECRET_FILE_BYTES_MAX).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        faults.append(f"{variable}={path!r}: the file cannot be read: {reason}")
        return ""


def _variable(item: Any) -> str:
    return str(item["loc"][0]).upper() if item["loc"] else ""


def _fault(cls: type[Settings], item: Any, values: Mapping[str, str]) -> str:
    variable = _variable(item)
    if not variable:
        return str(item["msg"]).removeprefix("Value error, ")
    field = cls.model_fields[variable.lower()]
    if item["type"] == "missing":
        return f"{variable} is not set: {field.description}"
    secret = _is_secret(field.annotation)
    shown = "<secret>" if secret else repr(masked(values.get(variable.lower(), "")))
    rule = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{variable}={shown}: must be {rule} ({field.description})"


def masked(text: str) -> str:
    """The text without the password that a URL in it may have."""
    text = re.sub(r"(://)[^/@]*@|(://).*@", r"\1\2<secret>@", text)
    return re.sub(r"([?&][a-z_]*password=)[^&#]*", r"\1<secret>", text, flags=re.IGNORECASE)


def _explain(
    names: Sequence[str], field: FieldInfo, origins: Mapping[str, Mapping[str, str]]
) -> Setting:
    description = field.description or ""
    for given in names:
        value, origin = _look_up(given, origins)
        if value:
            if given != names[0]:
                return Setting(names[0], "<secret>", f"{origin} ({given})", description)
            shown = "<secret>" if _is_secret(field.annotation) else masked(value)
            return Setting(names[0], shown, origin, description)
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    if default is None:
        return Setting(names[0], "", "not set", description)
    return Setting(names[0], str(default), "default", description)


def _look_up(variable: str, origins: Mapping[str, Mapping[str, str]]) -> tuple[str, str]:
    for origin, values in origins.items():
        if variable in values:
            return values[variable], origin
    return "", ""


def print_settings(cls: type[Settings]) -> NoReturn:
    """Prints a service's settings as this shell has them; leaves with 78 for a bad one.

    What only the stack sets (HTTP_PORT, ...) is no fault here. `doctor` reads `.env` as well.
    """
    rows = cls.explain({"environment": os.environ})
    widths = [
        max(len(column) for column in columns)
        for columns in zip(*((row.variable, row.value, row.origin) for row in rows), strict=True)
    ]
    for row in rows:
        cells = zip((row.variable, row.value, row.origin), widths, strict=True)
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in cells))
        sys.stdout.write(f"  {row.description}\n")
    try:
        cls.read(os.environ)
    except SettingsError as error:
        bad = [fault for fault in error.faults if " is not set" not in fault]
    else:
        bad = []
    sys.stderr.write("".join(f"{fault}\n" for fault in bad))
    raise SystemExit(EXIT_BAD_SETTINGS if bad else 0)


SettingsT = TypeVar("SettingsT", bound=Settings)


def read_or_exit(cls: type[SettingsT], environ: Mapping[str, str]) -> SettingsT:
    """Reads the settings, or tells every fault on stderr and leaves with 78 (EX_CONFIG)."""
    try:
        return cls.read(environ)
    except SettingsError as error:
        exit_for(error.faults)


def exit_for(faults: Sequence[str]) -> NoReturn:
    """Tells what is wrong with the settings and leaves, before anything was started."""
    lines = "".join(f"  {fault}\n" for fault in faults)
    sys.stderr.write(f"bad settings, nothing was started:\n{lines}")
    raise SystemExit(EXIT_BAD_SETTINGS)
