"""The dead letters: `python -m services.psp_connector.deadletters` lists and replays them.

With several partitions, a dead letter's id starts with its partition: `p3:1795417668000-0`.
"""

import argparse
import heapq
import itertools
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

import redis

from services.common import redis_check, redis_client, scripts, store
from services.common.clock import Clock, now_ms, rfc3339
from services.common.command import printable, run_main
from services.common.redaction import redactor
from services.common.redis_url import RedisSettings
from services.common.settings import SettingsError
from services.common.transaction import Event
from services.psp_connector.psp import IDEMPOTENCY_KEY_HOURS
from services.psp_connector.records import is_old

_PAGE = 100
# Redis refuses numbers of 2**64 and above.
_ID = re.compile(r"(p[0-9]{1,4}:)?[0-9]{1,19}-[0-9]{1,19}")
_REPLAY = scripts.script(__file__, "replay.lua")
_REDIS_TIMEOUT_SECONDS = 2.0

_SEARCH = (
    "search for the transaction's id in the metadata of payments there, and if it was not "
    "captured, replay with --not-captured"
)
WHY_NOT = {
    "old": (
        f"attempted over {IDEMPOTENCY_KEY_HOURS} hours ago, so the PSP may no longer know its "
        f"idempotency key: {_SEARCH}"
    ),
    "elsewhere": (
        "attempted at another PSP, account or mode than PSP_URL, PSP_ACCOUNT and PSP_API_KEY name "
        f"now, where its idempotency key is unknown: {_SEARCH}"
    ),
    "full": "Redis is full: raise its maxmemory or wait until it is drained, then repeat",
    "gone": "no such dead letter, or replayed already; see `deadletters list`",
    "missing": "its transaction does not exist",
    "captured": "its transaction was captured",
    "declined": "its transaction was declined, which is final",
    "queued": "its transaction is already being retried",
    "processing": "its transaction is already being retried",
}

_EPILOG = """\
A transaction that could not be charged in PSP_ATTEMPTS_MAX attempts fails and leaves a dead letter
for DEADLETTER_DAYS; so does an unreadable queue entry.

examples:
  $ deadletters list
  1795528162413-0      2026-11-24T13:49:22.413Z 3ffad832-... given up after 8 attempts: HTTP 500
  $ deadletters replay 1795528162413-0
  1795528162413-0: queued again
  $ deadletters replay --all

environment:
  REDIS_URL       the platform's Redis (default: that of this checkout's stack)
  PLATFORM_STATE  the state folder of that stack

exit codes:
  0  done
  1  no such dead letter, not replayed, or Redis unavailable
  2  wrong usage
"""


class DeadLetters:
    """The dead letters of all partitions, oldest first."""

    def __init__(
        self,
        client: store.Client,
        partitions: Sequence[store.Partition] = (store.WHOLE,),
        clock: Clock = time.time,
    ) -> None:
        self._redis = client
        self._partitions = {id_prefix(partition): partition for partition in partitions}
        self._clock = clock

    def all(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Yields id and fields of each, in pages, up to the newest at the time of the call."""
        return heapq.merge(*itertools.starmap(self._all, self._partitions.items()), key=_order)

    def _all(self, prefix: str, partition: store.Partition) -> Iterator[tuple[str, dict[str, str]]]:
        newest = self._redis.xrevrange(partition.deadletters, count=1)
        start = "-"
        while newest:
            page = self._redis.xrange(partition.deadletters, start, newest[0][0], count=_PAGE)
            for entry_id, fields in page:
                yield prefix + entry_id, fields
            if len(page) < _PAGE:
                return
            start = f"({page[-1][0]}"

    def latest(self, count_max: int) -> list[tuple[str, dict[str, str]]]:
        """Returns id and fields of the newest, newest first."""
        letters = [
            (prefix + entry_id, fields)
            for prefix, partition in self._partitions.items()
            for entry_id, fields in self._redis.xrevrange(partition.deadletters, count=count_max)
        ]
        return heapq.nlargest(count_max, letters, key=_order)

    def get(self, letter_id: str) -> dict[str, str] | None:
        partition, entry_id = self._find(letter_id)
        entries = partition and self._redis.xrange(partition.deadletters, entry_id, entry_id)
        return dict(entries[0][1]) if entries else None

    def _find(self, letter_id: str) -> tuple[store.Partition | None, str]:
        prefix, colon, entry_id = letter_id.rpartition(":")
        return self._partitions.get(prefix + colon), entry_id

    def replay(self, letter_id: str, *, not_captured: bool = False) -> str:
        """Queues the transaction again; returns `done` or a key of `WHY_NOT`.

        `not_captured`: the operator has verified that no PSP has captured it. Ignored while the PSP
        knows the idempotency key, which it soon forgets.
        """
        partition, entry_id = self._find(letter_id)
        letter = self.get(letter_id)
        if partition is None or letter is None:
            return "gone"
        transaction_id = letter.get("transaction_id", "")
        now = now_ms(self._clock)
        record = partition.transaction(transaction_id)
        unknown = self._why_unknown(partition, record, now)
        if unknown and not not_captured:
            return unknown
        keys = [record, partition.queue, partition.deadletters]
        event = Event.of("replayed", now).to_json()
        args = [transaction_id, entry_id, rfc3339(now), event, "1" if unknown else ""]
        try:
            return str(scripts.run_script(self._redis, _REPLAY, keys, args))
        except redis.OutOfMemoryError:
            return "full"

    def _why_unknown(self, partition: store.Partition, key: str, now: int) -> str:
        """Why the PSP may not know the idempotency key; empty if it does."""
        names = ("status", "psp", "created_at", "attempted_at", "not_captured_at")
        try:
            status, psp, created_at, attempted_at, not_captured_at = self._redis.hmget(key, names)
            current = self._redis.get(partition.psp)
        except redis.ResponseError:  # another type: the script reports it
            return ""
        if status != "failed":
            return ""
        if psp and psp != current:
            return "elsewhere"
        return "old" if is_old(created_at, attempted_at, not_captured_at, now) else ""


def id_prefix(partition: store.Partition) -> str:
    """The prefix of a partition's dead letter ids."""
    return f"p{partition.number}:" if partition.prefix else ""


def _order(letter: tuple[str, dict[str, str]]) -> list[int]:
    return [int(number) for number in letter[0].rpartition(":")[2].split("-")]


def main(argv: Sequence[str], environ: Mapping[str, str], out: TextIO, err: TextIO) -> int:
    """Runs the command; returns its exit code."""
    arguments = parser().parse_args(argv)
    try:
        # No confirmation by replicas: dead letters are needed most while a replica is down.
        settings = RedisSettings.read({**environ, "REDIS_REPLICAS_MIN": "0"})
    except SettingsError as error:
        err.write(f"deadletters: {error}: has the stack been started here?\n")
        return 1
    client = redis_client.connect_to(settings, _REDIS_TIMEOUT_SECONDS)
    letters = DeadLetters(client, store.partitions(settings.partitions))
    try:
        redis_check.check(client, settings)
        return _run(letters, arguments, out, err)
    except redis_check.MismatchError as error:
        err.write(f"deadletters: {error}\n")
        return 1
    except redis.ResponseError as error:
        err.write(f"deadletters: Redis refuses this: {redactor(settings)(str(error))}\n")
        return 1
    except redis_client.ERRORS as error:
        err.write(f"deadletters: Redis unavailable ({type(error).__name__}): is the stack up?\n")
        return 1


def _run(letters: DeadLetters, arguments: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    if arguments.command == "list":
        is_empty = True
        for letter_id, letter in letters.all():
            is_empty = False
            out.write(_line(letter_id, letter))
        if is_empty:
            out.write("none\n")
        return 0
    ids = [i for i, _ in letters.all()] if arguments.all else [arguments.id]
    if not ids:
        out.write("none\n")
    code = 0
    for letter_id in ids:
        outcome = letters.replay(letter_id, not_captured=arguments.not_captured)
        if outcome == "done":
            out.write(f"{letter_id}: queued again\n")
        else:
            reason = WHY_NOT.get(outcome) or printable(outcome)
            err.write(f"{letter_id}: not replayed: {reason}\n")
            code = 1
    return code


def _line(letter_id: str, letter: Mapping[str, str]) -> str:
    transaction_id, at = letter.get("transaction_id") or "-", letter.get("at", "")
    line = f"{letter_id:<20} {at:<24} {transaction_id:<36} {letter.get('reason', '')}"
    return printable(line) + "\n"


def _letter_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise argparse.ArgumentTypeError(
            "must be an id such as 1795417668000-0; see `deadletters list`"
        )
    return text


def parser() -> argparse.ArgumentParser:
    """The command-line parser."""
    command_line = argparse.ArgumentParser(
        prog="deadletters",
        description="Lists dead letters and replays failed transactions.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = command_line.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="list all, oldest first")
    replay = commands.add_parser("replay", help="queue a failed transaction again")
    which = replay.add_mutually_exclusive_group(required=True)
    which.add_argument("id", nargs="?", type=_letter_id, help="as `list` prints it")
    which.add_argument("--all", action="store_true", help="all dead letters")
    replay.add_argument(
        "--not-captured",
        action="store_true",
        help="replay even after a day or at another PSP: you have checked that it is not captured",
    )
    return command_line


if __name__ == "__main__":
    sys.exit(run_main(lambda: main(sys.argv[1:], os.environ, sys.stdout, sys.stderr)))
