"""`.env`, read by python-dotenv for the stack and its commands."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv.parser import parse_stream

# gunicorn's, and the interpreter's own: with them services do not start, or return 500.
_BREAK_SERVICES = {"SCRIPT_NAME", "PYTHONHOME", "PYTHONINSPECT"}


@dataclass(frozen=True)
class EnvFile:
    """The variables that the file sets, and its faults, which never contain a value."""

    values: Mapping[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def pc_env_faults(folder: Path) -> list[str]:
    """A line if there is a `.pc_env`, which process-compose reads before anything else."""
    if not (folder / ".pc_env").exists():
        return []
    return [".pc_env is process-compose's own: remove it, and use .env or its flags"]


def read(path: Path) -> EnvFile:
    """Reads the file without expanding `$`. A missing file is an empty one; a later line wins."""
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        if path.is_symlink():
            return EnvFile(faults=[f"{path.name} is a link to {path.readlink()}, which is missing"])
        return EnvFile()
    except OSError as error:
        return EnvFile(faults=[f"{path.name} cannot be read: {error.strerror}"])
    except UnicodeDecodeError:
        return EnvFile(faults=[f"{path.name} is not UTF-8 text: save it as UTF-8"])
    values, faults = {}, []
    for key, value, original, is_wrong in parse_stream(io.StringIO(text)):
        line = f"{path.name}, line {original.line}"
        if is_wrong or (key and value is None):
            faults.append(f"{line}: is not NAME=value (comments begin with #)")
        elif key and value is not None and (fault := _fault(key, value)):
            faults.append(f"{line}: {fault}")
        elif key and value is not None:
            values[key] = value
    return EnvFile(values, faults)


def _fault(key: str, value: str) -> str:
    if key.startswith("PC_"):
        # For example, PC_NO_SERVER would start a stack that no command can stop.
        return f"{key} is process-compose's own: use its flags"
    if key in _BREAK_SERVICES:
        return f"{key} would break the services: remove it"
    if not f"{key}{value}".isprintable():
        return (
            f"{key!a} contains an invisible character, or several lines: type it again in one line"
        )
    return ""
