"""The doctor's checks of the services' Redis: whether it keeps accepted transactions."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from redis import ResponseError
from redis.exceptions import AuthenticationError, NoPermissionError

from devtools.checkout import Checkout
from devtools.doctor.findings import Finding
from services.common import redis_client, store
from services.common.redaction import redactor
from services.common.redis_check import MismatchError, check_kind, check_node, keys_of_nodes
from services.common.redis_url import RedisSettings
from services.common.settings import SettingsError, masked
from services.psp_connector.metrics import QueueCollector
from services.psp_connector.sweep import Sweep

_RESPONSE_SECONDS_MAX = 2.0
_MEMORY_SHARE_MAX = 0.9
# Each replica reports once a second.
_REPLICA_LAG_SECONDS_MAX = 3
# A million records take about 5 s.
_SWEEP_SECONDS_MAX = 8.0
# More than any call at the PSP, and than the wait of a full queue.
_QUEUED_SECONDS_MAX = 60.0


def redis(checkout: Checkout, remedy: str) -> list[Finding]:
    """One finding per fact of each node, or a fault with this remedy if Redis does not respond."""
    try:
        defaults = {"REDIS_URL_FILE": str(checkout.state / "redis-url")}
        settings = RedisSettings.read({**defaults, **checkout.merged})
    except SettingsError as error:
        return [Finding("address", "unknown", "fault", str(error), "correct it")]
    redacted = redactor(settings)
    return [replace(one, note=redacted(one.note)) for one in _examine(settings, remedy)]


def _examine(settings: RedisSettings, remedy: str) -> list[Finding]:
    url = masked(settings.redis_url)
    try:
        connection = redis_client.connect_to(settings, _RESPONSE_SECONDS_MAX)
        with contextlib.closing(connection) as client:
            return [Finding("address", url), *_of(client, settings)]
    except MismatchError as error:
        return [Finding(url, "mismatch", "fault", str(error))]
    except ResponseError as error:
        return [Finding(url, "error", "fault", str(error))]
    except (*redis_client.ERRORS, OSError, ValueError) as error:
        return [Finding(url, "no response", "fault", str(error), remedy)]


def _of(client: store.Client, settings: RedisSettings) -> list[Finding]:
    check_kind(client, settings)
    stored = client.get(store.COUNT_KEY) or str(settings.partitions)
    remedy = f"set PARTITIONS={stored}: the services refuse to start with another number"
    findings = [
        _required("partitions", str(settings.partitions), stored, remedy),
        _write(client, settings),
    ]
    for name, node in redis_client.nodes(client).items():
        if name:
            findings.append(Finding("primary", name))
        findings += _node(node)
        if required := settings.redis_replicas_min:
            findings.append(_replicas(node, required))
    partitions = store.partitions(settings.partitions)
    return [*findings, _oldest(client, partitions), _lost(client, partitions)]


def _write(client: store.Client, settings: RedisSettings) -> Finding:
    """Whether Redis takes writes and scripts now, and its user has all permissions needed."""
    try:
        for key in keys_of_nodes(client, settings):
            check_node(client, settings, key)
    except (NoPermissionError, AuthenticationError) as error:
        remedy = "docs/production.md lists what the services need"
        return Finding("permissions", "missing", "fault", str(error), remedy)
    except ResponseError as error:
        if "AOF" in str(error):  # a fault of `last write to it`
            return Finding("a write", "refused")
        remedy = "until Redis takes writes, payments get 503"
        return Finding("a write", "refused", "fault", str(error), remedy)
    return Finding("a write", "ok")


def _node(client: store.Client) -> list[Finding]:
    facts = client.info("persistence") | client.info("memory")
    aof = "on" if facts.get("aof_enabled") else "off"
    is_rewriting = facts.get("aof_rewrite_in_progress")
    rewrite = "ok" if is_rewriting else facts.get("aof_last_bgrewrite_status")
    write, policy = facts.get("aof_last_write_status"), facts.get("maxmemory_policy")
    loss = "without it a kill -9 loses accepted transactions"
    disk = (
        "free space, or make its folder writable, before you stop Redis: what it has not written "
    )
    disk += "would be lost; until then it refuses writes"
    copy = "is there memory and disk for a second copy? see the log of Redis"
    evicted = "any other lets transactions disappear"
    return [
        _required("append-only file", aof, "on", f"appendonly yes: {loss}"),
        _required("last write to it", write, "ok", disk),
        _required("last rewrite", rewrite, "ok", copy),
        _required("when full", policy, "noeviction", f"maxmemory-policy noeviction: {evicted}"),
        _memory(facts),
    ]


def _replicas(client: store.Client, required: int) -> Finding:
    """A fault if fewer than required confirm writes; a suspended one stays `online` for a while."""
    facts = client.info("replication")
    replicas = [facts[f"slave{n}"] for n in range(int(facts["connected_slaves"]))]
    lag = _REPLICA_LAG_SECONDS_MAX
    count = sum(one["state"] == "online" and one["lag"] <= lag for one in replicas)
    if count >= required:
        return Finding("replicas", str(count))
    remedy = "it accepts nothing until there are as many: is one stopped, or too few set up?"
    return Finding("replicas", str(count), "fault", f"must be at least {required}", remedy)


def _required(name: str, value: object, required: str, remedy: str) -> Finding:
    if value == required:
        return Finding(name, required)
    return Finding(name, str(value), "fault", f"must be {required}", remedy)


def _memory(facts: Mapping[str, Any]) -> Finding:
    used, limit = int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))
    value = f"{used / 1024**2:.1f} MiB"
    note = f"of {limit / 1024**2:.0f} MiB" if limit else "no limit"
    if limit and used > limit * _MEMORY_SHARE_MAX:
        remedy = "a full Redis refuses writes: drain the queue, or raise maxmemory"
        return Finding("memory", value, "warning", note, remedy)
    return Finding("memory", value, note=note)


def _oldest(client: store.Client, partitions: Sequence[store.Partition]) -> Finding:
    """The age of the oldest queue entry: old if a charged payment cannot be saved, for example."""
    gauges = {gauge.name: gauge.samples for gauge in QueueCollector(client, partitions).collect()}
    ages = [sample.value for sample in gauges["queue_oldest_entry_age_seconds"]]
    name, age_seconds = "oldest queue entry", max(ages, default=0.0)
    value = f"{age_seconds:.0f} s"
    if age_seconds <= _QUEUED_SECONDS_MAX:
        return Finding(name, value)
    remedy = "`logs --service psp-connector --level warning` says why"
    return Finding(name, value, "warning", "a payment waits, or cannot be saved", remedy)


def _lost(client: store.Client, partitions: Sequence[store.Partition]) -> Finding:
    """Open transactions that are in no queue: only the connector's sweep finds them."""
    name, count, until = "orphaned transactions", 0, time.monotonic() + _SWEEP_SECONDS_MAX
    try:
        for ids in Sweep(client, partitions).look():
            count += len(ids)
            if time.monotonic() > until:
                return Finding(name, f"{count} so far", note="not all records checked")
    except ResponseError as error:
        # After other errors, such as MISCONF of a full disk, deleting a key would lose payments.
        is_key = "WRONGTYPE" in str(error)
        remedy = "a key was overwritten by hand: delete it, and payments continue" if is_key else ""
        return Finding(name, "unknown", "fault", str(error), remedy)
    if not count:
        return Finding(name, "0")
    note = "was the queue or its group changed by hand?"
    remedy = "the connector queues them again, a thousand records a second: is it running?"
    return Finding(name, str(count), "warning", note, remedy)
