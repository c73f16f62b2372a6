import base64
import contextlib
import hmac
import json
import string
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.common.clock import Clock
from services.common.tokens import LIFETIME_SECONDS, TokenError, Tokens, TokenSettings

CLAIMS = ["iss", "aud", "sub", "username", "enabled", "iat", "exp", "jti"]
SECRET = "0123456789abcdef0123456789abcdef"


def tokens(clock: Clock = time.time) -> Tokens:
    return Tokens(TokenSettings.read({"HTTP_PORT": "1", "JWT_SECRET": SECRET}), clock)


def issue(issuer: Tokens) -> str:
    return issuer.issue(1, "alice", enabled=True)


@pytest.mark.parametrize("seconds", [LIFETIME_SECONDS, -3600])
def test_a_known_token_is_verified_again_outside_its_lifetime(seconds: float) -> None:
    """A token is verified once within its lifetime, and again after it or with a clock set back."""
    now = [time.time()]
    issuer = tokens(lambda: now[0])
    token = issue(issuer)
    first = issuer.verify(token)
    assert first is issuer.verify(token)
    now[0] += seconds
    assert first is not issuer.verify(token)


def test_the_error_of_an_expired_token_says_so() -> None:
    old = issue(tokens(lambda: time.time() - LIFETIME_SECONDS - 1))
    with pytest.raises(TokenError, match="expired; get a new one from the Auth API"):
        tokens().verify(old)


def test_one_changed_character_is_another_token() -> None:
    """The cache key is the whole token, including the signature."""
    issuer = tokens()
    token = issue(issuer)
    issuer.verify(token)
    middle = token.rindex(".") + 5
    changed = token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :]
    with pytest.raises(TokenError):
        issuer.verify(changed)


@pytest.mark.parametrize("spelling", ["{}=", "{}===", "{}\n", "{} ", "{}\xff", "~{}"])
def test_a_token_has_one_spelling(spelling: str) -> None:
    """A base64 decoder that skips characters would accept each of these."""
    issuer = tokens()
    token = issue(issuer)
    issuer.verify(token)
    with pytest.raises(TokenError):
        issuer.verify(spelling.format(token))


def test_the_unused_bits_of_a_signature_are_zero() -> None:
    """A decoder that ignores them would accept four last characters."""
    issuer = tokens()
    for _ in range(20):
        token = issue(issuer)
        valid = []
        for last in string.ascii_letters + string.digits + "-_":
            with contextlib.suppress(TokenError):
                issuer.verify(token[:-1] + last)
                valid.append(last)
        assert valid == [token[-1]]


def test_a_user_id_that_no_record_can_have_is_refused() -> None:
    """Otherwise a payment would be accepted that can never be charged."""
    issuer = tokens()
    issuer.verify(issuer.issue(10**15 - 1, "alice", enabled=True))
    with pytest.raises(TokenError):
        issuer.verify(issuer.issue(10**15, "alice", enabled=True))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def signed(*parts: object) -> str:
    """A token with any header and claims, signed with the right key."""
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    signature = hmac.digest(SECRET.encode(), b".".join(texts), "sha256")
    return b".".join([*texts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


@given(
    changes=st.dictionaries(
        st.sampled_from([*CLAIMS, "nbf", "alg", "crit", "b64"]), JSON, max_size=3
    )
)
@example(changes={"exp": []})
@example(changes={"iat": {}})
@example(changes={"nbf": None})
@example(changes={"alg": []})
@settings(max_examples=100)
def test_no_claim_type_causes_a_500(changes: dict[str, object]) -> None:
    """A signed token with any JSON in claims or header is either accepted or refused."""
    now = int(time.time())
    header = {"typ": "JWT", "alg": "HS256"}
    claims = dict(
        zip(CLAIMS, ["auth-api", "core-api", "1", "a", True, now, now + 30, "j"], strict=True)
    )
    assert tokens().verify(signed(header, claims)).username == "a"
    for parts in ((header, claims | changes), (header | changes, claims)):
        with contextlib.suppress(TokenError):
            tokens().verify(signed(*parts))
