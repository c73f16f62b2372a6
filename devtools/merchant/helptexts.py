"""The epilogs of `merchant --help` and of each command."""

from __future__ import annotations

_ALL = """
environment:
  PLATFORM_URL        where the router is
  PLATFORM_PORT       or its port; else that of this checkout's stack, as it was last started
  MERCHANT_PASSWORD   the merchant's password (password, as the shipped users have it)
  JWT_SECRET          of `smoke`, or JWT_SECRET_FILE: signs an expired token (.state/jwt-secret);
                      with another than the platform's, or without, one check waits 31 seconds
  NO_COLOR            any value: no colours; FORCE_COLOR: colours in a pipe, too

exit codes:
  0  done; of `pay`: captured, or accepted with --no-wait
  1  of `pay`: declined or failed; of `smoke`: a check failed
  2  wrong usage
  3  of `pay`: still open when --timeout was over
  4  the platform cannot be reached, or refuses
  130  interrupted
"""

_ID = "3ffad832-4908-4697-aaed-7256802ccb64"
MERCHANT = f"""\
examples:
  merchant pay 1250 USD --as alice             USD 12.50: a token, a transaction, its end
  merchant pay 500 JPY --as alice              JPY 500: the yen has no smaller unit
  merchant pay 1250 USD --as becky --payment-method pm_card_chargeDeclined
  merchant pay 1250 USD --as alice --idempotency-key order-17     safe to repeat
  merchant list --as alice
  merchant show {_ID} --as alice
  merchant COMMAND --help                      a command's arguments and output
{_ALL}"""

OF_COMMAND = {
    "pay": f"""\
example:
  $ merchant pay 1250 USD --as alice
  token          53 ms  request e0ec2948-cfc2-4f80-ae0c-6f5156512bbc  for alice
  accepted       25 ms  request 612d9199-ca46-4c3d-b6b0-b1602d89a3af  transaction {_ID}
  queued         +0 ms
  processing     +9 ms  attempt 1
  captured      +42 ms
  followed       44 ms  request 9caf4136-beda-4bab-8d87-124755623834  the last of 2
  captured  USD 12.50  12 points  in 42 ms

payment methods of the sandbox, all of them in services/psp_sandbox/README.md:
  pm_card_visa            captured
  pm_card_chargeDeclined  declined: generic_decline
  pm_sandbox_flaky        fails twice, then captured
  pm_sandbox_timeout, pm_sandbox_slow, pm_sandbox_error_500, pm_sandbox_rate_limited
{_ALL}""",
    "show": f"""\
example:
  $ merchant show {_ID} --as alice
  transaction  {_ID}
  created      2026-11-24 13:49:22Z
  ...
  captured  USD 12.50  12 points  in 42 ms
{_ALL}""",
    "trace": f"""\
example:
  $ merchant trace {_ID} --as alice
  ...
        +0.6  core-api            3.0 ms    POST /
        +1.2  core-api            1.2 ms      send queue
  ...
The stack's console has the spans, and shows more of them.
{_ALL}""",
    "list": f"""\
example:
  $ merchant list --as alice --limit 1
  2026-11-24 13:49:24Z  f05ab49f-be31-4d73-b8b7-e6b1ea24c02c    JPY 500  captured    500 points
  older ones: merchant list --limit 100 --as alice
{_ALL}""",
    "loyalty": f"""\
example:
  $ merchant loyalty --as alice --limit 1
  538 points
  2026-11-24 13:49:24Z  +500    JPY 500  f05ab49f-be31-4d73-b8b7-e6b1ea24c02c
{_ALL}""",
    "token": f"""\
example, within the 30 seconds that a token is valid:
  http 127.0.0.1:8000/transactions Authorization:"Bearer $(merchant token --as alice)"
{_ALL}""",
    "smoke": f"""\
example:
  $ merchant smoke
  ok      health: the router                                                  28 ms
  ok      captured: alice pays USD 1250, gets 12 points                       78 ms
  ...
  smoke: 15 passed, 0 failed
{_ALL}""",
}
