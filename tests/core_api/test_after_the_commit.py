import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from services.common import store
from tests.core_api.helpers import PAYMENT, SECRET, bearer
from tests.support import http, service, wait_until


@pytest.mark.parametrize("lost", ["log", "state folder", "temporary folder"])
def test_lost_logs_and_metrics_do_not_affect_the_202(
    lost: str, tmp_path: Path, client: Any, redis_port: int
) -> None:
    """A worker without a log reader or metrics folder still accepts with 202."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    more = {"REDIS_URL": f"redis://127.0.0.1:{redis_port}/0", "TMPDIR": str(folder)}
    more["JWT_SECRET"] = SECRET
    if lost == "state folder":
        more["PLATFORM_STATE"] = str(folder)
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    with service("core_api", tmp_path, **more) as (url, process):
        if lost == "log":
            os.close(reader)
        else:
            shutil.rmtree(folder)
        for worker in (workers := process.children()):
            worker.kill()
        wait_until(lambda: not {*workers} & {*process.children()}, what="their end")
        statuses = [http.post(url, json=PAYMENT, headers=bearer()).status_code for _ in range(20)]
        assert statuses == [202] * 20
        assert client.xlen(store.WHOLE.queue) == 20
        assert (200 if lost == "log" else 503) == http.get(f"{url}/metrics").status_code
