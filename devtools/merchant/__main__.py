"""`merchant`: see `merchant --help`."""

import argparse
import json
import os
import re
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from devtools import arguments, checkout
from devtools.address import AddressError, router_url, state_folder
from devtools.merchant.errors import PlatformError
from services.common.command import printable, run_main

EXIT_PLATFORM = 4

_SHIPPED_PASSWORD = "password"  # noqa: S105  of the users that ship with the platform
_SHIPPED_USERS = Path(__file__).parents[2] / "services/auth_api/users.json"
_EXAMPLES = """\
examples:
  merchant pay 1250 USD --as alice             pays USD 12.50 and waits for the result
  merchant pay 500 JPY --as alice              JPY 500: the yen has no smaller unit
  merchant pay 1250 USD --as becky --payment-method pm_card_chargeDeclined
  merchant pay 1250 USD --as alice --idempotency-key order-17     safe to repeat
  merchant trace 3ffad832-4908-4697-aaed-7256802ccb64 --as alice
  merchant smoke                               15 checks of the running stack
  http 127.0.0.1:8000/transactions Authorization:"Bearer $(merchant token --as alice)"

services/psp_sandbox/README.md lists the payment methods: captured, declined, slow, failing.
"""
_EPILOG = """
environment:
  PLATFORM_URL        the router's address
  PLATFORM_PORT       or its port (default: that of this checkout's last start)
  MERCHANT_PASSWORD   the merchant's password (`password`, that of the shipped users)
  JWT_SECRET          for `smoke`, or JWT_SECRET_FILE: signs an expired token (.state/jwt-secret);
                      if it is not the platform's, one check waits 31 seconds
  NO_COLOR            any value: no colours; FORCE_COLOR: colours in a pipe, too

exit codes:
  0  done; `pay`: captured
  1  `pay`: declined or failed; `smoke`: a check failed
  2  wrong usage
  3  `pay`: still open after --timeout
  4  the platform cannot be reached, or refuses
  130  interrupted
"""


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Runs one command; returns its exit code.

    Raises:
        SystemExit: wrong usage.
    """
    args = parser().parse_args(argv)
    try:
        return _run(args, environ)
    except AddressError as error:
        parser().error(str(error))
    except PlatformError as error:
        _explain(error)
        return EXIT_PLATFORM


def _run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    url = router_url({**environ, "PLATFORM_URL": args.url} if args.url else environ)
    password = environ.get("MERCHANT_PASSWORD") or _SHIPPED_PASSWORD
    try:
        "".join(map(str, [*vars(args).values(), password])).encode()
    except UnicodeEncodeError:
        parser().error("arguments and MERCHANT_PASSWORD must be UTF-8")
    # Imported late: loading the HTTP client takes longer than printing --help.
    if args.command == "smoke":
        from devtools.merchant import contract  # noqa: PLC0415

        secret = {"JWT_SECRET_FILE": str(state_folder(environ) / "jwt-secret")}
        return contract.run(url, password, secret | {**environ}, seconds_max=args.timeout)
    from devtools.merchant import commands  # noqa: PLC0415

    return commands.run(args, url, password, environ)


def _explain(error: PlatformError) -> None:
    lines = [f"merchant: {error}", *(f"  {fault}" for fault in error.errors)]
    lines += [f"  {hint}" for hint in error.hint.splitlines()]
    lines += [f"  request {error.request_id}"] if error.request_id else []
    sys.stderr.writelines(f"{printable(line)}\n" for line in lines)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    merchant = arguments.Parser(
        "merchant",
        "Pays through the platform's router, as a merchant would.",
        _EXAMPLES + _EPILOG,
    )
    commands = merchant.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_pay(commands)
    trace = _add(commands, "trace", "where a transaction's time went, hop by hop")
    trace.add_argument("id", metavar="ID", type=uuid.UUID, help="as `pay` printed it")
    _add(commands, "token", "a token and nothing else, for scripts")
    _add_command(commands, "smoke", "checks the running stack through the router", 60)
    return merchant


def _add_command(
    commands: Any, name: str, what: str, timeout_seconds: int
) -> argparse.ArgumentParser:
    command = arguments.command(commands, name, what, _EPILOG)
    command.add_argument("--url", help="the router's address (http://127.0.0.1:8000)")
    command.add_argument(
        "--timeout", type=arguments.seconds, default=float(timeout_seconds), metavar="S",
        help=f"limit for the whole command, in seconds ({timeout_seconds})",
    )  # fmt: skip
    return command


def _add(commands: Any, name: str, what: str) -> argparse.ArgumentParser:
    command = _add_command(commands, name, what, 30)
    command.add_argument(
        "--as", dest="username", required=True, metavar="NAME",
        choices=arguments.Suggestions(_usernames), help="the merchant",
    )  # fmt: skip
    return command


def _add_pay(commands: Any) -> None:
    pay = _add(commands, "pay", "pays, follows the transaction, and shows each hop")
    pay.add_argument(
        "amount", metavar="AMOUNT", type=_amount,
        help="whole number in the currency's smallest unit: 1250 is USD 12.50",
    )  # fmt: skip
    pay.add_argument("currency", metavar="CURRENCY", help="ISO 4217 code, such as USD")
    pay.add_argument(
        "--payment-method", metavar="PM",
        choices=arguments.Suggestions(_payment_methods),
        help="one of Stripe's test names (pm_card_visa), or of the sandbox's",
    )  # fmt: skip
    pay.add_argument(
        "--idempotency-key", metavar="K", type=_header_value,
        help="makes the same payment safe to repeat for 24 hours",
    )  # fmt: skip


def _usernames() -> Iterable[str]:
    return [user["username"] for user in json.loads(_SHIPPED_USERS.read_text())]


def _payment_methods() -> Iterable[str]:
    from services.psp_sandbox.behaviours import PAYMENT_METHODS  # noqa: PLC0415 - slow

    return PAYMENT_METHODS


def _header_value(text: str) -> str:
    if not re.fullmatch(r"[!-~]+", text):
        raise argparse.ArgumentTypeError("must be visible ASCII characters")
    return text


def _amount(text: str) -> int:
    if not re.fullmatch(r"0*[1-9][0-9]{0,17}", text):
        raise argparse.ArgumentTypeError(
            "must be a whole number in the currency's smallest unit: for USD 12.50 write 1250"
        )
    return int(text)


if __name__ == "__main__":
    sys.exit(run_main(lambda: main(sys.argv[1:], checkout.current(os.environ).merged)))
