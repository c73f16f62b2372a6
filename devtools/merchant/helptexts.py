"""The epilogs of `merchant --help` and of each command: real sessions."""

from __future__ import annotations

_ENVIRONMENT = """\
environment:
  PLATFORM_URL        where the router is
  PLATFORM_PORT       or its port; else that of this checkout's stack, as it was last started
  MERCHANT_PASSWORD   the merchant's password (password, as the shipped users have it)
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
  merchant trace {_ID} --as alice     where its time went
  http POST 127.0.0.1:8000/transactions amount=1250 currency=USD token=$(merchant token --as alice)
  merchant COMMAND --help                      a command's arguments and output

{_ENVIRONMENT}\
  PLATFORM_STATE      the stack's state folder, with its logs (.state): for trace

exit codes:
  0  captured, or done       3    still open when the time was up
  1  declined or failed      4    the platform cannot be reached, or refuses
  2  wrong usage             130  interrupted
"""

_EXIT_CODES = """\
exit codes:
  0  done                    4    the platform cannot be reached, or refuses
  2  wrong usage             130  interrupted
"""

_PAY = f"""\
example:
  $ merchant pay 1250 USD --as alice
  token          53 ms  request e0ec2948-cfc2-4f80-ae0c-6f5156512bbc  for alice
  accepted       25 ms  request 612d9199-ca46-4c3d-b6b0-b1602d89a3af  transaction {_ID}
  queued         +0 ms
  processing     +9 ms  attempt 1
  captured      +42 ms
  followed       44 ms  request 9caf4136-beda-4bab-8d87-124755623834  the last of 2
  captured  USD 12.50  12 points  in 42 ms

payment methods, with the sandbox:
  pm_card_visa                                captured
  pm_card_chargeDeclined                      declined: generic_decline
  pm_card_chargeDeclinedInsufficientFunds     declined: insufficient_funds
  pm_sandbox_flaky                            fails twice, then captured
  pm_sandbox_timeout, pm_sandbox_slow, pm_sandbox_error_500, pm_sandbox_rate_limited
  all of them: services/psp_sandbox/README.md

{_ENVIRONMENT}
exit codes:
  0  captured; accepted, with --no-wait       3    still open when --timeout was over
  1  declined or failed                       4    the platform cannot be reached, or refuses
  2  wrong usage                              130  interrupted
"""

_SHOW = f"""\
example:
  $ merchant show {_ID} --as alice
  transaction  {_ID}
  created      2026-11-24 13:49:22Z
  method       pm_card_visa
  reference    pi_54aa53473e26dbf3890ea3d0
  attempts     1
  queued         +0 ms
  processing     +9 ms  attempt 1
  captured      +42 ms
  captured  USD 12.50  12 points  in 42 ms
  request f96d110f-fe59-4f04-af8a-c7380231eb5b

{_ENVIRONMENT}
{_EXIT_CODES}"""

_TRACE = f"""\
example:
  $ merchant trace {_ID} --as alice
  transaction  {_ID}
  request      612d9199-ca46-4c3d-b6b0-b1602d89a3af
        +0.0  router             18.1 ms  POST /transactions 202
        +1.3  core-api           15.3 ms  POST / 202
        +2.6  queue              13.0 ms  waits for attempt 1
       +15.6  psp-connector      50.0 ms  attempt 1: captured  PSP 44.3 ms  finish 5.7 ms
       +30.0  psp-sandbox         7.6 ms  POST /v1/payment_intents 200
  spent  router 2.9 ms  Core API 15.3 ms  queue 13.0 ms  PSP 44.3 ms  finish 5.7 ms  all 65.6 ms
  captured  USD 12.50  12 points  in 58 ms
  The lines themselves: logs --transaction {_ID}

{_ENVIRONMENT}\
  PLATFORM_STATE      the stack's state folder, with its logs (.state)

{_EXIT_CODES}"""

_LIST = f"""\
example:
  $ merchant list --as alice --limit 2
  2026-11-24 13:49:24Z  f05ab49f-be31-4d73-b8b7-e6b1ea24c02c    JPY 500  captured    500 points
  2026-11-24 13:49:23Z  005b480d-c0c5-4f00-98a4-e5572c76b5b4  USD 12.50  declined    generic_decline
  older ones: merchant list --limit 2 --cursor MTc5NTUyODE2MjQxMw --as alice
  request 38fa5e4c-822c-4768-85d7-91d5c47a905e

{_ENVIRONMENT}
{_EXIT_CODES}"""

_LOYALTY = f"""\
example:
  $ merchant loyalty --as alice --limit 2
  538 points
  2026-11-24 13:49:24Z  +500    JPY 500  f05ab49f-be31-4d73-b8b7-e6b1ea24c02c
  2026-11-24 13:49:22Z  +12   USD 12.50  {_ID}
  older ones: merchant loyalty --limit 2 --cursor Mg --as alice
  request 32a06027-3eb6-4a5f-83c5-fd231221759a

{_ENVIRONMENT}
{_EXIT_CODES}"""

_TOKEN = f"""\
examples, within the 30 seconds that a token is valid:
  http POST 127.0.0.1:8000/transactions amount=1250 currency=USD token=$(merchant token --as alice)
  http 127.0.0.1:8000/transactions Authorization:"Bearer $(merchant token --as alice)"

{_ENVIRONMENT}
{_EXIT_CODES}"""

_SMOKE = f"""\
example:
  $ merchant smoke          (`process-compose run smoke` starts what it needs, and is quicker)
  ok      health: the router                                                  28 ms
  ok      captured: alice pays USD 1250, gets 12 points                       78 ms
  ok      401: a token with another signature                                 27 ms
  ...
  smoke: 15 passed, 0 failed

{_ENVIRONMENT}\
  JWT_SECRET, JWT_SECRET_FILE   the stack's: a token that has expired is made with it; without,
                                31 seconds are waited for one to expire

exit codes:
  0  all passed              1    some failed
  2  wrong usage             130  interrupted
"""

OF_COMMAND = {
    "pay": _PAY,
    "show": _SHOW,
    "trace": _TRACE,
    "list": _LIST,
    "loyalty": _LOYALTY,
    "token": _TOKEN,
    "smoke": _SMOKE,
}
