"""The epilogs of `merchant --help`, of `pay` and of the other commands."""

COMMAND = """
environment:
  PLATFORM_URL        where the router is
  PLATFORM_PORT       or its port; else that of this checkout's stack, as it was last started
  MERCHANT_PASSWORD   the merchant's password (password, as the shipped users have it)
  JWT_SECRET          of `smoke`, or JWT_SECRET_FILE: signs an expired token (.state/jwt-secret);
                      with another than the platform's, or without, one check waits 31 seconds
  NO_COLOR            any value: no colours; FORCE_COLOR: colours in a pipe, too

exit codes:
  0  done; of `pay`: captured
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
  merchant trace {_ID} --as alice
  merchant smoke                               15 checks of the running stack
  http 127.0.0.1:8000/transactions Authorization:"Bearer $(merchant token --as alice)"
{COMMAND}"""

PAY = f"""\
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
{COMMAND}"""
