"""`.env`, read by python-dotenv for the stack and its commands.

`python -m devtools.envfile PROGRAM ARG...` runs the program with the checkout's `.env` in its
environment. process-compose is started this way because it drops the whole file if one line is
invalid.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv.parser import parse_stream


@dataclass(frozen=True)
class EnvFile:
    """The variables that the file sets, and its faults, which never contain a value."""

    values: Mapping[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def read(path: Path) -> EnvFile:
    """Reads the file without expanding `$`. A missing file is an empty one; a later line wins."""
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
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
        elif key and key.startswith("PC_"):
            # PC_NO_SERVER, for one, would start a stack that no command can stop.
            faults.append(f"{line}: {key} is process-compose's own: use its flags")
        elif key and value is not None and not f"{key}{value}".isprintable():
            faults.append(f"{line}: {key!a} contains an invisible character: type it again")
        elif key and value is not None:
            values[key] = value
    return EnvFile(values, faults)


def checkout(environ: Mapping[str, str]) -> Path:
    """The checkout around the working folder, else PLATFORM_CHECKOUT, else the working folder."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "process-compose.yaml").is_file() and (folder / "services").is_dir():
            return folder
    return Path(environ.get("PLATFORM_CHECKOUT") or here)


def state(environ: Mapping[str, str], folder: Path) -> Path:
    """The state folder of this checkout, absolute.

    As in nix/platform/env.sh, one that another checkout's shell derived is ignored.
    """
    chosen = environ.get("PLATFORM_STATE", "")
    is_derived = chosen == f"{environ.get('PLATFORM_CHECKOUT', '')}/.state"
    return folder.absolute() / (".state" if is_derived or not chosen else chosen)


def merged(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a command: as in the stack, the shell overrides `.env`."""
    folder = checkout(environ)
    is_ours = (folder / "process-compose.yaml").is_file()  # not another project's .env
    values = read(folder / ".env").values if is_ours else {}
    return {**values, **environ, "PLATFORM_STATE": str(state(environ, folder))}


def main(command: list[str], environ: Mapping[str, str]) -> None:
    """Replaces this process by the command. Preflight reports the faults."""
    folder = Path(environ.get("PLATFORM_CHECKOUT") or checkout(environ))
    values = read(folder / ".env").values
    os.execvpe(command[0], command, {**values, **environ, "PC_DISABLE_DOTENV": "1"})  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
