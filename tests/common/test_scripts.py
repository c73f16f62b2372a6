"""Every Lua script is all-or-nothing: a key of another type, a command that is not permitted."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import redis

from services.common import scripts
from tests.support import ROOT

ENTRY, LETTER = "7-1", "9-1"
ID = "00000000-0000-4000-8000-000000000000"
_EVENT = '{"event": "e"}'

# The type of each key, and arguments with which it would write. A record of another type (`-`) is
# handled by the script itself: one of many must not stop the others.
SCRIPTS: Mapping[str, tuple[str, tuple[object, ...]]] = {
    "core_api/accept.lua": (
        "none zset stream zset none",
        (ID, 1, "m", "r", 100, "", "fingerprint", "{}", 60, "user_id", 1),
    ),
    "psp_connector/begin.lua": ("-", ("now", "psp", "", "", "amount", "currency")),
    "psp_connector/claim.lua": ("stream", ("group", "one", "two", 5)),
    "psp_connector/create_group.lua": ("stream -", ("another", "psp")),
    "psp_connector/dead_letter.lua": (
        "stream stream -", ("group", ENTRY, ID, "reason", "{}", "now", "1-0", _EVENT, 60),
    ),
    "psp_connector/finish.lua": (
        "hash stream string list zset zset -",
        (ID, "group", ENTRY, "captured", "now", _EVENT, 5, "{}", 60, "1", "reason", "1-0", "one"),
    ),
    "psp_connector/finish.lua if it failed": (
        "hash stream - - zset zset stream",
        (ID, "group", ENTRY, "failed", "now", _EVENT, 0, "{}", 60, "1", "reason", "1-0", "one"),
    ),
    "psp_connector/promote.lua": ("zset stream", (10, 5, 20, "transaction:")),
    "psp_connector/remove_consumer.lua": ("stream", ("group", "nobody")),
    "psp_connector/replay.lua": ("- stream stream", (ID, LETTER, "now", _EVENT)),
    "psp_connector/retry.lua": (
        "hash stream zset", (ID, "group", ENTRY, "one", "now", _EVENT, 5, ""),
    ),
    "psp_connector/set_aside.lua": ("stream", ("group", "one", ENTRY, "merchant:1")),
    "psp_connector/sweep.lua": ("stream zset -", ("group", "queue", ID)),
}  # fmt: skip
CASES = [
    (name, index)
    for name, (types, _) in SCRIPTS.items()
    for index, kind in enumerate(types.split())
    if kind != "-"
]


def make(client: Any, key: str, kind: str) -> None:
    if kind in {"hash", "-"}:
        client.hset(key, mapping={"status": "processing", "attempts": 0, "timeline": _EVENT})
    elif kind == "zset":
        client.zadd(key, {"m": 1})
    elif kind == "string":
        client.set(key, "1")
    elif kind == "list":
        client.rpush(key, "1")
    elif kind == "stream":
        client.xadd(key, {"transaction_id": ID}, id=ENTRY)
        client.xadd(key, {"transaction_id": ID}, id=LETTER)
        client.xgroup_create(key, "group", id="0")
        client.xreadgroup("group", "one", {key: ">"})


def everything(redis_port: int) -> dict[bytes, bytes]:
    with redis.Redis(port=redis_port) as binary:
        return {key: binary.dump(key) for key in binary.scan_iter()}


def test_every_script_is_here() -> None:
    """Every script is tested in this module."""
    names = {str(path.relative_to(ROOT / "services")) for path in ROOT.glob("services/*/*.lua")}
    names.remove("common/library.lua")  # which is put before each of them
    assert names == {name.partition(" ")[0] for name in SCRIPTS}


def prepared(client: Any, name: str) -> list[str]:
    """Creates the keys that make a script write."""
    kinds = SCRIPTS[name][0].split()
    keys = [f"key:{number}" for number, _ in enumerate(kinds)]
    for key, kind in zip(keys, kinds, strict=True):
        make(client, key, kind)
    if name.endswith("remove_consumer.lua"):
        client.xgroup_createconsumer(keys[0], "group", "nobody")
    if name.endswith("replay.lua"):
        client.hset(keys[0], "status", "failed")
    if name.endswith("promote.lua"):
        client.hset("transaction:m", "status", "queued")
    return keys


def text_of(name: str) -> str:
    path = ROOT / "services" / name.partition(" ")[0]
    return scripts.script(str(path), path.name).text


@pytest.mark.parametrize(("name", "index"), CASES)
def test_a_key_of_another_type_is_refused_before_anything_is_written(
    client: Any, redis_port: int, name: str, index: int
) -> None:
    """The error names the key and its type, and no key has changed; otherwise the call writes."""
    keys, args = prepared(client, name), SCRIPTS[name][1]
    script = client.register_script(text_of(name))
    right = everything(redis_port)
    script(keys=keys, args=args)
    assert right != everything(redis_port)
    client.flushall()
    prepared(client, name)
    client.delete(keys[index])
    client.sadd(keys[index], "a set")
    before = everything(redis_port)
    with pytest.raises(redis.ResponseError, match=f"^WRONGTYPE {keys[index]} is a set, not a "):
        script(keys=keys, args=args)
    assert before == everything(redis_port)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_command_without_permission_is_refused_before_anything_is_written(
    client: Any, redis_port: int, name: str
) -> None:
    """Whichever command the user has lost since the start, the call does all or nothing."""
    text, args = text_of(name), SCRIPTS[name][1]
    keys = prepared(client, name)
    reply = client.eval(text, len(keys), *keys, *args)
    refused = set()
    for command in set(re.findall(r"(?:call|call_on_edited)\('(\w+)'", text)):
        client.flushall()
        prepared(client, name)
        before = everything(redis_port)
        with user_without(client, redis_port, command) as of_user:
            try:
                assert of_user.eval(text, len(keys), *keys, *args) == reply, command
            except redis.ResponseError:
                refused.add(command)
                assert before == everything(redis_port), command
    assert refused


@pytest.mark.parametrize("command", ["HMGET", "XPENDING", "XRANGE", "XINFO"])
def test_a_sweep_that_may_not_look_takes_nothing(
    client: Any, redis_port: int, command: str
) -> None:
    """Otherwise it would queue transactions again that a connector is charging."""
    name = "psp_connector/sweep.lua"
    keys = prepared(client, name)
    client.hset(keys[2], "entry", ENTRY)
    before = everything(redis_port)
    with (
        user_without(client, redis_port, command) as of_user,
        pytest.raises(redis.ResponseError),
    ):
        of_user.eval(text_of(name), len(keys), *keys, *SCRIPTS[name][1])
    assert before == everything(redis_port)


@contextlib.contextmanager
def user_without(client: Any, redis_port: int, command: str) -> Iterator[Any]:
    client.execute_command("ACL SETUSER", "some", "reset", "on", "nopass", "~*", "+@all")
    client.execute_command("ACL SETUSER", "some", f"-{command}")
    try:
        with redis.Redis(
            port=redis_port, username="some", password="x", decode_responses=True
        ) as of_user:
            yield of_user
    finally:
        client.acl_deluser("some")
