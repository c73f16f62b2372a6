"""The command line of `merchant`."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from devtools import arguments
from devtools.address import AddressError, router_url, state_folder
from devtools.merchant import helptexts
from devtools.merchant.errors import PlatformError
from services.common.command import printable

T = TypeVar("T")

EXIT_PLATFORM = 4

_SHIPPED_PASSWORD = "password"  # noqa: S105  of the users that ship with the platform
_SHIPPED_USERS = Path(__file__).parents[2] / "services/auth_api/users.json"
_PASSWORD_CHARACTERS_MAX = 1024
_URL = r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?"


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Runs one command; returns its exit code.

    Raises:
        SystemExit: wrong usage.
    """
    args = parser().parse_args(argv)
    try:
        return _run(args, environ)
    except argparse.ArgumentTypeError as error:
        parser().error(str(error))
    except PlatformError as error:
        _explain(error)
        return EXIT_PLATFORM


def _run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    url = args.url or _platform_url(environ)
    password = _password(args, environ)
    # Imported late: loading the HTTP client takes longer than printing --help.
    if args.command == "smoke":
        from devtools.merchant import contract  # noqa: PLC0415

        return contract.run(url, password, _with_secret(environ), seconds_max=args.timeout)
    from devtools.merchant import commands  # noqa: PLC0415

    return commands.run(args, url, password, environ)


def _with_secret(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Adds the secret of this checkout's stack unless the variables have one."""
    path = state_folder(environ) / "jwt-secret"
    if environ.get("JWT_SECRET") or environ.get("JWT_SECRET_FILE") or not path.is_file():
        return environ
    return {**environ, "JWT_SECRET_FILE": str(path)}


def _explain(error: PlatformError) -> None:
    lines = [f"merchant: {error}", *(f"  {fault}" for fault in error.errors)]
    lines += [f"  {hint}" for hint in error.hint.splitlines()]
    lines += [f"  request {error.request_id}"] if error.request_id else []
    sys.stderr.writelines(f"{printable(line)}\n" for line in lines)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    merchant = arguments.parser(
        "merchant", "Pays through the platform's router, as a merchant would.", helptexts.MERCHANT
    )
    commands = merchant.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_pay(commands)
    _add_id(_add(commands, "show", "one transaction and its timeline"))
    _add_id(_add(commands, "trace", "where a transaction's time went, hop by hop"))
    for name, what in (
        ("list", "the merchant's transactions, newest first"),
        ("loyalty", "the merchant's loyalty points, and what they come from"),
    ):
        _add(commands, name, what).add_argument(
            "--limit", type=_limit, default=20, metavar="N", help="how many lines (20)"
        )
    _add(commands, "token", "a token and nothing else, for scripts")
    smoke = _add_command(commands, "smoke", "checks the running stack through the router", 60)
    smoke.set_defaults(password_stdin=False)
    return merchant


def _add_command(
    commands: Any, name: str, what: str, timeout_seconds: int
) -> argparse.ArgumentParser:
    command = arguments.command(
        commands, name, what, helptexts.PAY if name == "pay" else helptexts.COMMAND
    )
    command.add_argument("--url", type=_url, help="where the router is (http://127.0.0.1:8000)")
    command.add_argument(
        "--timeout", type=_seconds, default=float(timeout_seconds), metavar="S",
        help=f"seconds that all of it may take ({timeout_seconds})",
    )  # fmt: skip
    return command


def _add(commands: Any, name: str, what: str) -> argparse.ArgumentParser:
    command = _add_command(commands, name, what, 30)
    command.add_argument(
        "--as", dest="username", required=True, metavar="NAME", type=_text,
        choices=arguments.Suggestions(_usernames), help="the merchant",
    )  # fmt: skip
    command.add_argument(
        "--password-stdin", action="store_true",
        help="reads the password's line from standard input, not from MERCHANT_PASSWORD",
    )  # fmt: skip
    return command


def _add_id(command: argparse.ArgumentParser) -> None:
    command.add_argument("id", metavar="ID", type=_transaction_id, help="as `pay` printed it")


def _add_pay(commands: Any) -> None:
    pay = _add(commands, "pay", "pays, follows the transaction, and shows each hop")
    pay.add_argument(
        "amount", metavar="AMOUNT", type=_amount,
        help="whole number in the currency's smallest unit: 1250 is USD 12.50",
    )  # fmt: skip
    pay.add_argument(
        "currency", metavar="CURRENCY", type=_currency, help="ISO 4217 code, such as USD"
    )
    pay.add_argument(
        "--payment-method", metavar="PM", type=_text,
        choices=arguments.Suggestions(_payment_methods),
        help="one of Stripe's test names (pm_card_visa), or of the sandbox's",
    )  # fmt: skip
    pay.add_argument(
        "--idempotency-key", metavar="K", type=_visible,
        help="makes the same payment safe to repeat for 24 hours",
    )  # fmt: skip
    pay.add_argument("--no-wait", action="store_true", help="ends when the transaction is accepted")


def _usernames() -> Iterable[str]:
    return [user["username"] for user in json.loads(_SHIPPED_USERS.read_text())]


def _payment_methods() -> Iterable[str]:
    from services.psp_sandbox.behaviours import PAYMENT_METHODS  # noqa: PLC0415 - slow

    return PAYMENT_METHODS


def _matching(pattern: str, rule: str, convert: Callable[[str], T]) -> Callable[[str], T]:
    """A type for argparse: what matches the pattern, converted."""

    def parse(text: str) -> T:
        if not re.fullmatch(pattern, text):
            raise argparse.ArgumentTypeError(f"must be {rule}")
        return convert(text)

    return parse


# Invalid UTF-8 in arguments becomes surrogates, which cannot be sent.
_text = _matching("[^\ud800-\udfff]+", "a text in UTF-8, and not empty", str)
_visible = _matching(r"[\x21-\x7e]{1,255}", "1 to 255 visible ASCII characters", str)
_amount = _matching(
    r"0*[1-9][0-9]{0,17}",
    "a whole number in the currency's smallest unit: for USD 12.50 write 1250",
    int,
)
_currency = _matching("[A-Z]{3}", "an ISO 4217 code in upper case, such as USD", str)
_transaction_id = _matching(
    r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
    "a transaction's id, as `pay` and `list` print it",
    str.lower,
)
_limit = _matching("[1-9][0-9]?|100", "a number from 1 to 100", int)
_seconds = _matching(
    r"(?=.*[1-9])[0-9]{1,4}(\.[0-9]{1,3})?", "a number of seconds, above 0, below 10000", float
)


def _url(text: str) -> str:
    """An address without a final slash; ArgumentTypeError for anything else."""
    try:
        is_valid = re.fullmatch(_URL, text) and urlsplit(text).port != 0
    except ValueError:  # of a port above 65535
        is_valid = False
    if not is_valid:
        raise argparse.ArgumentTypeError("must be an address such as http://127.0.0.1:8000")
    return text.rstrip("/")


def _platform_url(environ: Mapping[str, str]) -> str:
    try:
        return _url(router_url(environ))
    except AddressError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"PLATFORM_URL: {error}") from None


def _password(args: argparse.Namespace, environ: Mapping[str, str]) -> str:
    if args.password_stdin:
        name = "--password-stdin"
        try:
            line = sys.stdin.readline(_PASSWORD_CHARACTERS_MAX + 1)
        except UnicodeDecodeError:
            line = "\udcff"
        password = line.removeprefix("\ufeff").rstrip("\r\n")
    else:
        name = "MERCHANT_PASSWORD"
        password = environ.get(name) or _SHIPPED_PASSWORD
    if re.search("[\ud800-\udfff]", password) or not 0 < len(password) <= _PASSWORD_CHARACTERS_MAX:
        rule = f"one line of 1 to {_PASSWORD_CHARACTERS_MAX} characters in UTF-8"
        raise argparse.ArgumentTypeError(f"{name}: the password must be {rule}")
    return password
