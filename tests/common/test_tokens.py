from __future__ import annotations

import base64
import hmac
import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.common.tokens import LIFETIME_SECONDS, TokenError, Tokens, TokenSettings
from tests import support

CLAIMS = ["iss", "aud", "sub", "username", "enabled", "iat", "exp", "jti"]
SECRET = "0123456789abcdef0123456789abcdef"


def tokens(secret: str = SECRET, *, age_seconds: float = 0) -> Tokens:
    """A maker of tokens that are so old already."""
    found = TokenSettings.read({"HTTP_PORT": "1", "JWT_SECRET": secret})
    return Tokens(found, lambda: time.time() - age_seconds)


def issue(by: Tokens) -> str:
    return by.issue(1, "alice", enabled=True)


def refusal(by: Tokens, token: str) -> str:
    try:
        by.verify(token)
    except TokenError as error:
        return str(error)
    return ""


def test_a_known_token_ends_all_the_same() -> None:
    """One that is used all the time is refused from its `exp` on, as expired."""
    by = tokens()
    token = issue(tokens(age_seconds=LIFETIME_SECONDS - 2))
    assert not refusal(by, token)
    output = support.wait_until(lambda: refusal(by, token), seconds_max=5, what="its end")
    assert "has expired" in output
    assert "has expired" in refusal(by, token)


def test_a_known_token_does_not_come_before_its_time() -> None:
    """It is verified once; again after the clock was set back."""
    behind = [0.0]
    found = TokenSettings.read({"HTTP_PORT": "1", "JWT_SECRET": SECRET})
    by = Tokens(found, lambda: time.time() - behind[0])
    token = issue(by)
    first = by.verify(token)
    assert first is by.verify(token)
    behind[0] = 3600
    assert first is not by.verify(token), "it was verified again"


def test_one_changed_character_is_another_token() -> None:
    """What is remembered is the whole text, signature included."""
    by = tokens()
    token = issue(by)
    by.verify(token)
    middle = token.rindex(".") + 5
    changed = token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :]
    with pytest.raises(TokenError):
        by.verify(changed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def signed(*parts: object) -> str:
    """Header and claims under our key, of whatever types."""
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
def test_no_type_of_a_claim_is_an_error_of_ours(changes: dict[str, object]) -> None:
    """A signed token with any JSON in its claims or header is believed or refused, no more."""
    now = int(time.time())
    header = {"typ": "JWT", "alg": "HS256"}
    claims = dict(
        zip(CLAIMS, ["auth-api", "core-api", "1", "a", True, now, now + 30, "j"], strict=True)
    )
    assert not refusal(tokens(), signed(header, claims))
    refusal(tokens(), signed(header, claims | changes))
    refusal(tokens(), signed(header | changes, claims))
