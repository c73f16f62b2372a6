"""The page of a payment: the command to copy."""

import json
import subprocess
from pathlib import Path

from devtools.console.pages import payment


def test_the_command_to_copy_runs_nothing_else(tmp_path: Path) -> None:
    """No merchant name injects a command."""
    record = {"amount": 1, "currency": "USD", "payment_method": "pm_card_visa"}
    name = f"x; touch {tmp_path}/a; $(touch {tmp_path}/b) '`touch {tmp_path}/c`"
    text = payment.curl(record, name, "http://127.0.0.1:8000")
    programs = "curl() { printf '%s' \"${@:$#}\"; }; merchant() { printf '<%s>' \"$@\" >&2; }; "
    command = ["bash", "-c", programs + text]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == f"<token><--as><{name}>"
    assert list(tmp_path.iterdir()) == []
    assert json.loads(done.stdout) == record
