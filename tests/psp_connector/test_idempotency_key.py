"""Attempts at a time, or at a PSP, at which the idempotency key may be unknown."""

from collections.abc import Callable

import pytest

from services.common.clock import now_ms, rfc3339
from services.common.settings import Secret
from services.psp_connector.deadletters import DeadLetters
from services.psp_connector.psp import Captured, Refused, Transient
from services.psp_connector.records import RetryResult
from services.psp_connector.settings import ConnectorSettings
from services.psp_connector.sweep import Sweep
from tests.psp_connector.payments import STORE, FakePsp, Payments, take, take_over

OTHER_PSP = "https://other.example"


def flaky() -> FakePsp:
    return FakePsp(lambda _, call: Transient("HTTP 500") if call == 1 else Captured("pi"))


def by_a_kill(payments: Payments) -> None:
    queue = payments.queue("killed")
    take(queue)
    queue.leave()


def by_a_retry(payments: Payments) -> None:
    queue = payments.queue("one")
    [work] = take(queue)
    queue.save([(work, RetryResult("HTTP 500", 0))])


def by_a_retry_after_which_the_psp_is_not_reached(payments: Payments) -> None:
    by_a_retry(payments)
    unseen(payments)


def unseen(payments: Payments) -> None:
    """An attempt that the PSP has certainly not seen."""
    queue = payments.queue("one")
    queue.promote()
    [work] = take(queue)
    queue.save([(work, RetryResult("no response", 0, is_unseen=True))])


def by_an_earlier_version_and_a_retry_that_the_psp_has_not_seen(payments: Payments) -> None:
    by_a_retry(payments)
    [key] = payments.admin.keys("transaction:*")
    payments.client.hdel(key, "attempted_at", "psp")
    unseen(payments)


def by_a_replay(payments: Payments) -> None:
    queue = payments.queue("one")
    [work] = take(queue)
    payments.end(FakePsp(lambda *_: Refused("HTTP 400")), work.charge.transaction_id)
    letters = DeadLetters(payments.client)
    [(letter_id, _)] = letters.all()
    # The confirmation counts only once the key may be unknown.
    assert letters.replay(letter_id, not_captured=True) == "done"


def by_a_restore(payments: Payments) -> None:
    """The transaction is in no queue, and an attempt after the backup is not counted."""
    payments.client.delete(STORE.queue)


def by_a_restore_after_which_the_psp_is_not_reached(payments: Payments) -> None:
    by_a_restore(payments)
    payments.queue("one")
    assert Sweep(payments.client).step()
    unseen(payments)


def a_day_passes(payments: Payments, transaction_id: str) -> None:
    for field in ("created_at", "attempted_at"):
        if payments.client.hget(STORE.transaction(transaction_id), field):
            payments.change(transaction_id, field, rfc3339(now_ms() - 23 * 3_600_000 - 1000))


def a_day_passes_since_an_earlier_version(payments: Payments, transaction_id: str) -> None:
    for field in ("attempted_at", "psp"):
        payments.change(transaction_id, field, None)
    a_day_passes(payments, transaction_id)


def the_psp_changes(payments: Payments, _transaction_id: str) -> None:
    payments.settings = payments.settings.model_copy(update={"psp_url": OTHER_PSP})


REASONS = {
    "old": "first attempted over 23 hours ago: the PSP may have captured it",
    "elsewhere": "first attempted at another PSP, which may have captured it",
}


@pytest.mark.parametrize(
    ("attempt", "change", "why"),
    [
        *[(by, a_day_passes, "old") for by in (by_a_kill, by_a_retry, by_a_replay, by_a_restore)],
        *[
            (by, a_day_passes_since_an_earlier_version, "old")
            for by in (by_a_kill, by_a_retry, by_a_replay)
        ],
        *[(by, the_psp_changes, "elsewhere") for by in (by_a_kill, by_a_retry, by_a_replay)],
        (by_a_retry_after_which_the_psp_is_not_reached, the_psp_changes, "elsewhere"),
        (by_a_retry_after_which_the_psp_is_not_reached, a_day_passes, "old"),
        (by_an_earlier_version_and_a_retry_that_the_psp_has_not_seen, a_day_passes, "old"),
        (by_a_restore_after_which_the_psp_is_not_reached, the_psp_changes, "elsewhere"),
        (by_a_restore_after_which_the_psp_is_not_reached, a_day_passes, "old"),
    ],
)
def test_an_attempt_that_may_charge_twice_is_a_dead_letter(
    payments: Payments,
    attempt: Callable[[Payments], None],
    change: Callable[[Payments, str], None],
    why: str,
) -> None:
    """An earlier attempt may have captured; only an operator's confirmation repeats it."""
    transaction_id = payments.accept()
    attempt(payments)
    change(payments, transaction_id)
    psp, letters = FakePsp(), DeadLetters(payments.client)
    payments.end(psp, transaction_id)
    assert not psp.calls
    [(letter_id, letter)] = letters.all()
    assert letter["reason"] == REASONS[why]
    assert letters.replay(letter_id) == why
    assert letters.replay(letter_id, not_captured=True) == "done"
    payments.end(flaky(), transaction_id)
    assert payments.record(transaction_id)["status"] == "captured"


@pytest.mark.parametrize(
    ("attempts", "change"),
    [(0, a_day_passes), (2, a_day_passes), (0, the_psp_changes), (2, the_psp_changes)],
)
def test_a_payment_that_no_psp_has_seen_is_attempted_as_often_as_any(
    payments: Payments, attempts: int, change: Callable[[Payments, str], None]
) -> None:
    """After an outage of a day, or attempts at a wrong PSP_URL, its key is known from now on."""
    payments.settings = payments.settings.model_copy(update={"psp_attempts_max": 4})
    transaction_id = payments.accept()
    for _ in range(attempts):
        unseen(payments)
    change(payments, transaction_id)
    payments.end(flaky(), transaction_id)
    assert payments.record(transaction_id)["status"] == "captured"


def test_an_unseen_attempt_does_not_hide_a_later_one(payments: Payments) -> None:
    """Its result comes while the next attempt, of which it knows nothing, is in flight."""
    transaction_id = payments.accept()
    one, two = payments.queue("one"), payments.queue("two")
    [first] = take(one)
    payments.client.delete(STORE.lease("one"))
    two.reclaim(frozenset())
    [second] = take_over(one)
    assert (first.attempt, second.attempt) == (1, 2)
    one.save([(first, RetryResult("no response", 0, is_unseen=True))])
    assert payments.client.hexists(STORE.transaction(transaction_id), "psp")


def test_an_attempt_of_an_earlier_version_is_repeated_within_a_day(payments: Payments) -> None:
    """Its PSP is unknown, so a deployment does not fail it; a later change of the PSP does."""
    transaction_id = payments.accept()
    by_a_retry(payments)
    for field in ("attempted_at", "psp"):
        payments.change(transaction_id, field, None)
    queue = payments.queue("one")
    queue.promote()
    [work] = take(queue)
    assert work.attempt == 2
    the_psp_changes(payments, transaction_id)
    payments.client.delete(STORE.lease("one"))
    psp = FakePsp()
    payments.end(psp, transaction_id)
    assert not psp.calls


@pytest.mark.parametrize(
    ("url", "key", "expected", "account"),
    [
        ("http://127.0.0.1:8004", "sk_test_1", "sandbox-1 test", "sandbox-1"),
        ("https://api.stripe.com", "sk_live_1", "https://api.stripe.com live", ""),
        ("HTTPS://API.Stripe.com:443/", "rk_live_rotated", "https://api.stripe.com live", ""),
        ("https://api.stripe.com:", "sk_test_1", "https://api.stripe.com test", ""),
        ("https://api.stripe.com:8443", "secret", "https://api.stripe.com:8443", ""),
        ("https://api.stripe.com/eu", "sk_org_1", "https://api.stripe.com/eu", ""),
        ("http://[::1]:80/", "sk_test_1", "http://[::1] test", ""),
        ("http://psp:443", "secret", "http://psp:443", ""),
    ],
)
def test_a_psp_is_known_by_account_or_address_and_mode(
    url: str, key: str, expected: str, account: str
) -> None:
    """Another spelling of the address, or another key of the account, is the same PSP."""
    settings = ConnectorSettings(
        http_port=1, redis_url="redis://127.0.0.1:1/0", psp_url=url, psp_api_key=Secret(key),
        psp_account=account,
    )  # fmt: skip
    assert settings.psp == expected
