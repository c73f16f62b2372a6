"""The command line of `merchant`."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import re
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from devtools.address import AddressError, router_url
from devtools.merchant import helptexts
from devtools.merchant.errors import PlatformError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TextIO

EXIT_USAGE = 2
EXIT_PLATFORM = 4
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as the shell has it

_SHIPPED_PASSWORD = "password"  # noqa: S105  of the users that ship with the platform
_PASSWORD_CHARACTERS_MAX = 1024
_TIMEOUT_SECONDS_MAX = 3600
_PAGE_MAX = 100


def main(
    argv: Sequence[str],
    environ: Mapping[str, str],
    stdout: TextIO,
    *,
    stdin: TextIO | None = None,
    stderr: TextIO | None = None,
) -> int:
    """Runs one command; returns its exit code."""
    stderr = stderr or sys.stderr
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            args = parser().parse_args(argv)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        return _run(args, environ, stdin or sys.stdin, stdout)
    except UsageError as error:
        print(f"merchant: {error}", file=stderr)
        return EXIT_USAGE
    except PlatformError as error:
        _explain(error, stderr)
        if getattr(args, "json", False):
            print(json.dumps({"error": _as_json(error)}, indent=2), file=stdout)
        return EXIT_PLATFORM
    except KeyboardInterrupt:
        print("merchant: interrupted", file=stderr)
        return EXIT_INTERRUPTED


def _run(
    args: argparse.Namespace, environ: Mapping[str, str], stdin: TextIO, stdout: TextIO
) -> int:
    url = _platform_url(args.url, environ)
    password = _password(args, environ, stdin)
    # Imported late: the HTTP client takes longer to load than --help takes to print.
    if args.command == "smoke":
        from devtools.merchant import smoke  # noqa: PLC0415

        return smoke.run(url, password, environ, stdout, seconds_max=args.timeout)
    if args.command == "trace" and args.logs is None:
        # Not there is no mistake here: the stack may run elsewhere.
        args.logs = Path(environ.get("PLATFORM_STATE") or ".state", "logs")
    from devtools.merchant import commands  # noqa: PLC0415

    return commands.run(args, url, password, stdout)


def _explain(error: PlatformError, stderr: TextIO) -> None:
    code = f" ({error.code})" if error.code else ""
    lines = [f"merchant: {error.detail}{code}"]
    lines += [f"  {fault}" for fault in error.errors]
    lines += [f"  {hint}" for hint in error.hint.splitlines()]
    if error.request_id:
        lines.append(f"  request {error.request_id}")
    for line in lines:
        print("".join(c if c.isprintable() else "?" for c in line), file=stderr)


def _as_json(error: PlatformError) -> dict[str, Any]:
    return {
        "detail": error.detail,
        "status": error.status or None,
        "code": error.code or None,
        "errors": list(error.errors),
        "what_to_do": error.hint or None,
        "request_id": error.request_id or None,
    }


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    words = argparse.ArgumentParser(
        prog="merchant",
        description="Pays through the platform's router, as a merchant would.",
        epilog=helptexts.MERCHANT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = words.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_pay(commands)
    _add_id(_add(commands, "show", "one transaction and its timeline", "json"))
    trace = _add(commands, "trace", "where a transaction's time went, hop by hop", "json")
    _add_id(trace)
    trace.add_argument(
        "--logs", type=_folder, metavar="FOLDER", help="the stack's log files (.state/logs)"
    )
    for name, what in (
        ("list", "the merchant's transactions, newest first"),
        ("loyalty", "the merchant's loyalty points, and what they come from"),
    ):
        listing = _add(commands, name, what, "json")
        listing.add_argument(
            "--limit", type=_limit, default=20, metavar="N", help="how many lines (20)"
        )
        listing.add_argument(
            "--cursor", type=_visible, metavar="C", help="go on where a listing ended"
        )
    _add(commands, "token", "prints a token, and nothing else: for scripts")
    smoke = commands.add_parser(
        "smoke",
        help="checks the running stack through the router",
        description="Sends payments through the router and checks the responses.",
        epilog=helptexts.OF_COMMAND["smoke"],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_platform(smoke, timeout_seconds=60)
    smoke.set_defaults(password_stdin=False)
    return words


def _add_id(command: argparse.ArgumentParser) -> None:
    command.add_argument("id", metavar="ID", type=_transaction_id, help="as `pay` printed it")


def _add_pay(commands: Any) -> None:
    pay = _add(commands, "pay", "pays, follows the transaction, and shows each hop", "json")
    pay.add_argument(
        "amount",
        metavar="AMOUNT",
        type=_amount,
        help="whole number in the currency's smallest unit: 1250 is USD 12.50",
    )
    pay.add_argument(
        "currency", metavar="CURRENCY", type=_currency, help="ISO 4217 code, such as USD"
    )
    pay.add_argument(
        "--payment-method",
        metavar="PM",
        type=_text,
        help="one of Stripe's test names (pm_card_visa), or of the sandbox's",
    )
    pay.add_argument(
        "--idempotency-key",
        metavar="K",
        type=_visible,
        help="makes the same payment safe to repeat for 24 hours",
    )
    pay.add_argument("--no-wait", action="store_true", help="ends when the transaction is accepted")


def _add(commands: Any, name: str, what: str, *options: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=helptexts.OF_COMMAND[name],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument(
        "--as", dest="username", required=True, metavar="NAME", type=_text, help="the merchant"
    )
    command.add_argument(
        "--password-stdin",
        action="store_true",
        help="reads the password's line from standard input, not from MERCHANT_PASSWORD",
    )
    if "json" in options:
        command.add_argument("--json", action="store_true", help="prints one JSON document")
    _add_platform(command, timeout_seconds=30)
    return command


def _add_platform(command: argparse.ArgumentParser, *, timeout_seconds: int) -> None:
    command.add_argument("--url", help="where the router is (http://127.0.0.1:8000)")
    command.add_argument(
        "--timeout",
        type=_seconds,
        default=float(timeout_seconds),
        metavar="S",
        help=f"seconds that all of it may take ({timeout_seconds})",
    )


def _text(value: str) -> str:
    # Bytes that are no UTF-8 reach a program as surrogates, and cannot be sent on.
    if not value or re.search("[\ud800-\udfff]", value):
        raise argparse.ArgumentTypeError("must be a text in UTF-8, and not empty")
    return value


def _visible(value: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]{1,255}", value):
        raise argparse.ArgumentTypeError("must be 1 to 255 visible ASCII characters")
    return value


def _amount(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", value) or int(value) == 0:
        raise argparse.ArgumentTypeError(
            "must be a whole number in the currency's smallest unit: for USD 12.50 write 1250"
        )
    return int(value)


def _currency(value: str) -> str:
    if not re.fullmatch(r"[A-Z]{3}", value):
        raise argparse.ArgumentTypeError("must be an ISO 4217 code in upper case, such as USD")
    return value


def _transaction_id(value: str) -> str:
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise argparse.ArgumentTypeError(
            "must be a transaction's id, as `pay` and `list` print it"
        ) from None


def _folder(value: str) -> Path:
    folder = Path(value)
    if not value or not folder.is_dir():
        raise argparse.ArgumentTypeError("must be a folder with files like core-api.log")
    return folder


def _limit(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", value) or not 1 <= int(value) <= _PAGE_MAX:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {_PAGE_MAX}")
    return int(value)


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _TIMEOUT_SECONDS_MAX:
        raise argparse.ArgumentTypeError(
            f"must be a number of seconds, above 0 and at most {_TIMEOUT_SECONDS_MAX}"
        )
    return seconds


def _platform_url(option: str | None, environ: Mapping[str, str]) -> str:
    if option is not None:
        return _checked_url("--url", option)
    try:
        return _checked_url("PLATFORM_URL", router_url(environ))
    except AddressError as error:
        raise UsageError(str(error)) from None


def _checked_url(name: str, url: str) -> str:
    rule = f"{name}: must be the router's address, such as http://127.0.0.1:8000"
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises when it is none
    except ValueError:
        raise UsageError(rule) from None
    # Without a user, a query, or anything else that is no part of an address.
    if not re.fullmatch(
        r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?", url
    ):
        raise UsageError(rule)
    return url.rstrip("/")


def _password(args: argparse.Namespace, environ: Mapping[str, str], stdin: TextIO) -> str:
    if args.password_stdin:
        try:
            line = stdin.readline(_PASSWORD_CHARACTERS_MAX + 1)
        except UnicodeDecodeError:
            raise UsageError("--password-stdin: the password must be a text in UTF-8") from None
        name, password = "--password-stdin", line.removeprefix("\ufeff").rstrip("\r\n")
    else:
        name = "MERCHANT_PASSWORD"
        password = environ.get(name) or _SHIPPED_PASSWORD
    if not 0 < len(password) <= _PASSWORD_CHARACTERS_MAX:
        raise UsageError(f"{name}: must be one line of 1 to {_PASSWORD_CHARACTERS_MAX} characters")
    if re.search("[\ud800-\udfff]", password):
        raise UsageError(f"{name}: the password must be a text in UTF-8")
    return password
