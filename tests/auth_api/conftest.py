import shutil
from pathlib import Path

import pytest

from services.auth_api.settings import SHIPPED_USERS


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A users file for one test."""
    return Path(shutil.copy(SHIPPED_USERS, tmp_path / "users.json"))
