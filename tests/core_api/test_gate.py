from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import redis

from services.common.scripts import NotReplicatedError
from services.core_api.gate import Gate


def test_calls_to_a_redis_that_responds_pass_together() -> None:
    """Also after it refused one: that took no time."""
    gate = Gate(redis.TimeoutError)
    with pytest.raises(redis.ConnectionError), gate.passed():
        raise redis.ConnectionError("refused")
    with gate.passed(), gate.passed():
        pass


@pytest.mark.parametrize(
    "error",
    [redis.TimeoutError("no response"), NotReplicatedError("0 of 1 replicas")],
    ids=["no response", "no replica"],
)
def test_one_call_at_a_time_tries_a_redis_that_hangs(error: redis.RedisError) -> None:
    """The others fail at once, unsent, until a call gets its response."""
    gate, is_inside, responds = Gate(type(error)), Event(), Event()

    def call() -> None:
        with gate.passed():
            is_inside.set()
            assert responds.wait(10)

    for _ in range(2):
        with pytest.raises(type(error)), gate.passed():
            raise error
    with ThreadPoolExecutor(1) as pool:
        trying = pool.submit(call)
        assert is_inside.wait(10)
        with pytest.raises(redis.TimeoutError, match="another request"), gate.passed():
            pytest.fail("a second call tries it")
        responds.set()
        trying.result(10)
    with gate.passed(), gate.passed():
        pass


def test_a_burst_after_silence_passes_together() -> None:
    """A timeout over a second ago refuses no call; a more recent one still does."""
    now = [100.0]
    gate = Gate(redis.TimeoutError, clock=lambda: now[0])

    def hang() -> None:
        with gate.passed():
            now[0] += 5
            raise redis.TimeoutError("no response")

    with pytest.raises(redis.TimeoutError, match="no response"):
        hang()
    now[0] += 1
    with gate.passed():
        now[0] += 5
        with pytest.raises(redis.TimeoutError, match="another request"):
            hang()
    with pytest.raises(redis.TimeoutError, match="no response"):
        hang()
    now[0] += 1.1
    with gate.passed(), gate.passed():
        pass
