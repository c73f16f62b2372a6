"""`python -m devtools.preflight`: the stack's first process; the others wait for it.

Creates the state folder and the secrets, ends orphans of a killed supervisor, checks settings
and ports, and writes `environment`. Reports all faults at once, each with its remedy, and
exits with 78 (EX_CONFIG), which stops the stack.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from devtools import environment, processes, state
from devtools.address import (
    AUTO,
    BUS_OFFSET,
    DEFAULT_PORT,
    NODES,
    AddressError,
    chosen_port,
    clashes,
    free_block,
    has_own_redis,
    is_cluster,
    listeners,
    node_ports,
)
from devtools.checkout import SET_BY_THE_STACK, of_stack
from devtools.new import unsynced
from devtools.settings import FAULTS, SETTINGS, dotenv_faults, warnings
from services.common.command import run_main
from services.common.redaction import redactor
from services.common.redis_url import RedisSettings
from services.common.settings import EXIT_BAD_SETTINGS, SettingsError, masked

# A start creates these, so they are missing before the first one.
_MADE_BY_THE_START = {
    "JWT_SECRET": "-" * 64,
    "REDIS_URL": "redis://127.0.0.1",
    "SANDBOX_TOKEN": "-" * 64,
}
_OFF = {"", "0", "false", "no", "off", "f", "n"}  # as the services read it
_CHOICES = {"CONSOLE": ("on", "off"), "RELOAD": ("1", "0")}
_REDIS_SECONDS_MAX = 2.5  # including name resolution


def faults(environ: Mapping[str, str]) -> list[str]:
    """Everything that prevents a start, one line each."""
    checkout = of_stack(environ)
    folder = checkout.state
    lines = FAULTS + state.prepare(folder) + processes.conflicting_stacks(folder)
    lines += dotenv_faults(checkout) + unsynced.faults()
    try:
        first = chosen_port(environ)
        lines += clashes(first, environ) + busy_ports(first, folder, environ)
    except AddressError as error:
        first = DEFAULT_PORT
        lines.append(str(error))
    lines += wrong_settings(first, folder, environ) + unreachable_redis(environ)
    lines += other_data(folder, environ)
    return lines or _write(first, folder, environ)


def _write(first: int, folder: Path, environ: Mapping[str, str]) -> list[str]:
    script = environment.script(first, folder, environ)
    ports = node_ports(first, NODES if is_cluster(environ) else 1)
    try:
        state.write_environment(folder, script, ports)
        if has_own_redis(environ):
            state.write_partitions(folder, environ.get("PARTITIONS") or "1")
        if is_cluster(environ):
            state.write_addresses(folder, ports, BUS_OFFSET)
    except OSError as error:  # a full disk, or a folder in a file's place
        return [f"the state folder cannot be written: {error}"]
    return []


def wrong_settings(first: int, folder: Path, environ: Mapping[str, str]) -> list[str]:
    """A line for each invalid setting, with the services that read it."""
    variables = {n: value for n, value in environ.items() if value and n not in SET_BY_THE_STACK}
    created = {
        name: value
        for name, value in _MADE_BY_THE_START.items()
        if variables.keys().isdisjoint({name, f"{name}_FILE"})
    }
    readers: dict[str, list[str]] = {}
    for service, settings in SETTINGS.items():
        try:
            settings.read(environment.environment(service, first, folder, variables) | created)
        except SettingsError as error:
            for fault in error.faults:
                readers.setdefault(fault, []).append(service)
    host = environ.get("HTTP_HOST") or "127.0.0.1"
    if host not in ("127.0.0.1", "0.0.0.0") and not any("HTTP_HOST" in fault for fault in readers):
        rule = "127.0.0.1, where the stack's processes find each other, or 0.0.0.0"
        readers[f"HTTP_HOST={host!r}: must be {rule}"] = [*SETTINGS, "router"]
    for name, allowed in _CHOICES.items():
        if (value := variables.get(name, allowed[0])) not in allowed:
            readers[f"{name}={value!r}: must be {' or '.join(allowed)}"] = ["the stack"]
    lines = [f"{fault} [{', '.join(services)}]" for fault, services in readers.items()]
    return lines + wrong_proxy(variables) + missing_replicas(variables)


def wrong_cluster(environ: Mapping[str, str], *, with_cluster: bool) -> list[str]:
    """A line if REDIS_CLUSTER or REDIS_URL is not for a stack with or without `--cluster`."""
    value = environ.get("REDIS_CLUSTER", "")
    if with_cluster and not has_own_redis(environ):
        return ["--cluster starts nodes of the stack's own, but REDIS_URL is set: unset one"]
    if with_cluster or not has_own_redis(environ) or value.lower() in _OFF:
        return []
    rule = "is for the cluster of REDIS_URL; for one of the stack's own start with --cluster"
    return [f"REDIS_CLUSTER={value!r}: {rule}"]


def missing_replicas(environ: Mapping[str, str]) -> list[str]:
    """A line if the stack's own Redis has fewer replicas than REDIS_REPLICAS_MIN."""
    required = environ.get("REDIS_REPLICAS_MIN", "")
    if not required.isdecimal() or not has_own_redis(environ):
        return []
    count = 1 if is_cluster(environ) else 0  # devtools/cluster.py
    if int(required) <= count:
        return []
    start = "" if count else ", or start with --cluster, which has 1"
    fault = f"REDIS_REPLICAS_MIN={required}: the stack's own Redis has {count} for each primary"
    return [f"{fault}, so nothing would be accepted: set {count}{start}"]


def wrong_proxy(environ: Mapping[str, str]) -> list[str]:
    """A line if the connector cannot use the proxy for PSP_URL."""
    url = environ.get("PSP_URL")
    if not url or not any(
        value and name.lower().endswith("_proxy") for name, value in environ.items()
    ):
        return []
    # Slow to import; only for a PSP elsewhere.
    from services.psp_connector.bounded import proxies_for  # noqa: PLC0415

    try:
        proxies_for(url)
    except SettingsError as error:
        return [f"{fault} [psp-connector]" for fault in error.faults]
    except ValueError:  # PSP_URL is reported by wrong_settings
        return []
    return []


def unreachable_redis(environ: Mapping[str, str]) -> list[str]:
    """A line if an external Redis cannot be used. The stack's own is not running yet."""
    if has_own_redis(environ):
        return []
    try:
        settings = RedisSettings.read(environ)
    except SettingsError:  # reported by wrong_settings
        return []
    failure = ["Redis is unavailable: no response"]
    # In a thread, because name resolution has no timeout.
    thread = threading.Thread(target=_ping, args=(settings, failure), daemon=True)
    thread.start()
    thread.join(_REDIS_SECONDS_MAX)
    redacted = redactor(settings)
    return [f"REDIS_URL={masked(settings.redis_url)!r}: {redacted(one)}" for one in failure]


def _ping(settings: RedisSettings, failure: list[str]) -> None:
    # Slow to import; only for an external Redis.
    from redis import AuthenticationError, ResponseError  # noqa: PLC0415

    from services.common import redis_check, redis_client  # noqa: PLC0415

    try:
        with contextlib.closing(redis_client.connect_to(settings, timeout_seconds=1)) as client:
            redis_check.before_start(client, settings)
    except redis_check.MismatchError as error:
        failure[0] = str(error)
    except (AuthenticationError, ResponseError) as error:
        failure[0] = f"Redis refuses the services: {error}"
    except (*redis_client.ERRORS, OSError, ValueError) as error:
        failure[0] = f"Redis is unavailable: {error}"
    else:
        failure.clear()


def other_data(folder: Path, environ: Mapping[str, str]) -> list[str]:
    """A line if the data of the stack's own Redis are of another kind or number of partitions.

    Otherwise it would start without them, and a repeated Idempotency-Key would be charged again.
    """
    kinds = state.redis_kinds(folder) if has_own_redis(environ) else set()
    if not kinds:
        return []
    required, stored = environ.get("PARTITIONS") or "1", state.partitions_of(folder)
    if is_cluster(environ) and "cluster" not in kinds:
        remedy = "start without --cluster and REDIS_CLUSTER"
        fault = f"the data in {folder} are those of a single Redis: {remedy}"
    elif not is_cluster(environ) and "single" not in kinds:
        fault = f"the data in {folder} are those of a Redis Cluster: start with --cluster"
    elif stored in {"", required}:
        return []
    else:
        fault = (
            f"PARTITIONS={required}: the data in {folder} have {stored}; set PARTITIONS={stored}"
        )
    return [f"{fault}, or start from nothing with `platform reset`"]


def busy_ports(first: int, folder: Path, environ: Mapping[str, str]) -> list[str]:
    """A line for each port of the stack that is in use."""
    numbers = listeners(first, environ)
    busy = processes.holders(numbers, environ)
    other = free_block(first) if busy else None
    move = f"start with PLATFORM_PORT={other}" if other else "choose another PLATFORM_PORT"
    if environ.get("PLATFORM_PORT") == AUTO:  # always the same ports
        move = f"stop that process, or {move}"
    lines = []
    for name, holder in busy.items():
        who, remedy = holder.with_stack, move
        if holder.state == os.path.realpath(folder):
            who = f"{holder}: a stack of this checkout is running"
            remedy = f"`platform down`, or if that fails, kill {holder.pid}"
        lines.append(f"port {numbers[name]} ({name}) is held by {who}: {remedy}")
    return lines


def main(environ: Mapping[str, str]) -> int:
    """Checks; returns the exit code."""
    checkout = of_stack(environ)
    for warning in warnings(checkout):
        sys.stdout.write(f"preflight: warning: {warning}\n")
    ended, left = processes.end_orphans(checkout.state)
    if ended:
        sys.stdout.write(f"preflight: {ended}\n")
    with_cluster = "process-compose.cluster.yaml" in environ.get("PC_CONFIG_FILES", "")
    if wrong := wrong_cluster(environ, with_cluster=with_cluster):
        environ = {name: value for name, value in environ.items() if name != "REDIS_CLUSTER"}
    if reasons := left + wrong + faults(environ):
        lines = "".join(f"  {reason}\n" for reason in reasons)
        sys.stderr.write(f"preflight: the stack cannot start\n{lines}")
        return EXIT_BAD_SETTINGS
    first = chosen_port(environ)
    how = ", chosen by the checkout's path" if environ.get("PLATFORM_PORT") == AUTO else ""
    sys.stdout.write(f"preflight: all is in order; the router listens on port {first}{how}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(lambda: main(os.environ)))
