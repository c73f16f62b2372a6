"""The state folder of a checkout: its contents, version and removal."""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

# Increase it when older code would damage a folder of the new version.
VERSION = 1
_VERSION_CHARACTERS_MAX = 20

# A line of nodes.conf is `<id> <ip>:<port>@<bus port>[,...] <flags> ...`, as in
# https://redis.io/docs/latest/commands/cluster-nodes/.
_MYSELF = re.compile(r"^([0-9a-f]{40}) \S+ myself,", re.MULTILINE)
_NODE = re.compile(r"^([0-9a-f]{40}) [^ ,]*([ ,].*\n)", re.MULTILINE)

# Of a Redis file: without keys it has a header of some 90 bytes; a payment takes more than 600.
_EMPTY_BYTES_MAX = 300

_FOLDERS = ("redis", "caddy", "metrics")
# Random, created once, mode 600: the token secret, the Redis password, the sandbox's control token,
# and the id from which its account is derived.
_SECRETS = ("jwt-secret", "redis-password", "sandbox-token", "sandbox-id")
_FILES = (
    *("version", "environment", "redis-url", "partitions", *_SECRETS, "*.new"),
    *("psp-sandbox.sqlite*", "console.sqlite*", "pc.sock", "pc.sock*.lock"),
    "logs/*.log*",
)


def version_of(state: Path) -> str:
    """The folder's version; empty if it is new."""
    try:
        with (state / "version").open(encoding="utf-8", errors="replace") as file:
            return file.read(_VERSION_CHARACTERS_MAX).strip()
    except OSError:
        return ""


def prepare(state: Path) -> list[str]:
    """Creates the state folder and the secrets where missing; returns faults."""
    try:
        if fault := version_fault(state):
            return [fault]
        _make_folders(state)
        for name in _SECRETS:
            if (state / name).exists() and (state / name).stat().st_size:
                (state / name).chmod(0o600)
            else:
                _write(state / name, secrets.token_hex(32))
    except OSError as error:
        remedy = "give write permission, or name another folder in PLATFORM_STATE"
        return [f"PLATFORM_STATE={str(state)!r}: {error.strerror} ({error.filename}): {remedy}"]
    return []


def version_fault(state: Path) -> str:
    """Why this version cannot use the folder; empty if it can."""
    version = version_of(state)
    if not version or version == str(VERSION):
        return ""
    return (
        f"{state} was made by another version of this platform ({version!r}; this one is"
        f" {VERSION}): go back to that one, name another folder in PLATFORM_STATE, or start"
        " from nothing with `platform reset`"
    )


def _make_folders(state: Path) -> None:
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    state.chmod(0o700)
    # The version comes first, because it marks the folders as ours to remove.
    _write(state / "version", str(VERSION))
    if not (state / ".gitignore").exists():
        # Keeps secrets out of git, and so out of the Nix store, which everybody can read.
        _write(state / ".gitignore", "*")
    for name in ("logs", *_FOLDERS):
        (state / name).mkdir(mode=0o700, exist_ok=True)


def write_environment(state: Path, script: str, redis_ports: Iterable[int]) -> None:
    """Writes `environment` for the processes and `redis-url` for clients."""
    _write(state / "environment", script.rstrip("\n"))
    password = (state / "redis-password").read_text("ascii").strip()
    urls = [f"redis://:{password}@127.0.0.1:{port}/0" for port in redis_ports]
    _write(state / "redis-url", ",".join(urls))


def sandbox_account(state: Path) -> str:
    """The account at the folder's PSP sandbox, which knows only its own charges.

    Derived from a file's inode: it is the same after a move within the file system, and another one
    in a copy, a restored backup or after a reset.
    """
    name = state / "sandbox-id"
    with contextlib.suppress(OSError):
        made = f"{name.stat().st_ino} {name.read_text('ascii', 'replace')}"
        return f"sandbox-{hashlib.sha256(made.encode()).hexdigest()[:8]}"
    return "sandbox"  # before the first start


def redis_kinds(state: Path) -> set[str]:
    """The kinds of the stack's own Redis with data here: `single`, `cluster`, none or both.

    With an external Redis, an idle one leaves empty files.
    """
    folders = {"single": "redis", "cluster": "redis/node-*"}
    return {
        kind
        for kind, folder in folders.items()
        for file in state.glob(f"{folder}/appendonlydir/appendonly.aof.[0-9]*")
        if file.stat().st_size > _EMPTY_BYTES_MAX
    }


def partitions_of(state: Path) -> str:
    """The number of partitions of the data; empty without data."""
    try:
        return (state / "partitions").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def write_partitions(state: Path, count: str) -> None:
    """Records the number of partitions, until there are data."""
    if not partitions_of(state) or not redis_kinds(state):
        _write(state / "partitions", count)


def write_addresses(state: Path, ports: Sequence[int], bus_offset: int) -> None:
    """Gives the nodes of the stack's Redis Cluster each other's addresses.

    `nodes.conf` has those of the last start. In a copied folder they are the original's, whose
    nodes would become one cluster with these. A node whose file is missing keeps its lines.
    """
    files = [state / f"redis/node-{number}/nodes.conf" for number in range(len(ports))]
    texts = {file: file.read_text("utf-8", "replace") for file in files if file.exists()}
    port_of = {
        own[1]: port
        for file, port in zip(files, ports, strict=True)
        if (own := _MYSELF.search(texts.get(file, "")))
    }
    missing = next((port for port in ports if port not in port_of.values()), None)

    def line(match: re.Match[str]) -> str:
        port = port_of.get(match[1], missing)  # None for a node of another cluster
        return f"{match[1]} 127.0.0.1:{port}@{port + bus_offset}{match[2]}" if port else ""

    for file, text in texts.items():
        if (new := _NODE.sub(line, text)) != text and _MYSELF.search(text):
            _write(file, new.rstrip("\n"))


def _write(path: Path, text: str) -> None:
    # Replaced atomically: no reader sees a partial file.
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    draft.rename(path)


def was_started(state: Path) -> bool:
    """Whether a stack was ever started with this folder."""
    return version_of(state).isdigit()


def forget(state: Path) -> None:
    """Removes what preflight and the processes created.

    Keeps other files, also those of `nixw`, process-compose's screen settings and the targets of
    symbolic links.
    """
    for name in (*_FOLDERS, "logs"):
        if (state / name).is_symlink():
            (state / name).unlink()
    for name in _FOLDERS:
        if (state / name).is_dir():
            shutil.rmtree(state / name)
    # The version goes last, so that an interrupted removal can be repeated.
    for pattern in reversed(_FILES):
        for path in state.glob(pattern):
            path.unlink(missing_ok=True)
