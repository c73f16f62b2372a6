"""The logs of all processes about one request or transaction, whatever else the files hold."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services import logfiles
from services.logfiles import FolderError, Found, about_request, about_transaction

if TYPE_CHECKING:
    from pathlib import Path

PAYMENT = "0f8fad5b-d9cb-469f-a165-70867728950e"
OTHER = "11111111-d9cb-469f-a165-70867728950e"
MIB = 1024 * 1024


def said(second: int, **fields: Any) -> bytes:
    """A line as the services write it."""
    return json.dumps({**fields, "time": f"2026-11-23T07:00:{second:02d}.000000Z"}).encode() + b"\n"


def routed(second: int, request_id: str) -> bytes:
    """A line as the router writes it."""
    at = f"2026-11-23T09:00:{second:02d}.123456789+02:00"
    return json.dumps({"ts": at, "msg": "handled request", "request_id": request_id}).encode() + (
        b"\n"
    )


def sources(found: Found) -> list[tuple[str, int]]:
    return [(line.process, line.at.second) for line in found.lines]


def test_the_lines_of_all_processes_are_merged_by_time(tmp_path: Path) -> None:
    """The router knows the request only: it is found through who knows both."""
    (tmp_path / "router.log").write_bytes(routed(1, "r-2") + routed(5, "r-1"))
    (tmp_path / "core-api.log").write_bytes(said(4, request_id="r-1", transaction_id=PAYMENT))
    (tmp_path / "psp-connector.log").write_bytes(
        said(6, request_id="r-1", transaction_id=PAYMENT) + said(7, transaction_id=PAYMENT)
    )
    found = about_transaction(tmp_path, PAYMENT)
    assert [
        ("core-api", 4), ("router", 5), ("psp-connector", 6), ("psp-connector", 7)
    ] == sources(found)  # fmt: skip
    assert (["r-1"], 3, []) == (found.request_ids, found.files, found.notes)


def test_a_request_is_found_with_the_transaction_it_made(tmp_path: Path) -> None:
    """By the request's id alone."""
    (tmp_path / "router.log").write_bytes(routed(5, "r-1"))
    (tmp_path / "core-api.log").write_bytes(
        said(4, request_id="r-1", transaction_id=PAYMENT) + said(4, request_id="r-12")
    )
    found = about_request(tmp_path, "r-1")
    assert [("core-api", 4), ("router", 5)] == sources(found)
    assert PAYMENT == found.lines[0].fields["transaction_id"]


def test_another_transaction_of_the_same_request_id_is_left_out(tmp_path: Path) -> None:
    """A client may send the same id with all it asks."""
    (tmp_path / "core-api.log").write_bytes(
        said(1, request_id="r-1", transaction_id=PAYMENT)
        + said(2, request_id="r-1", transaction_id=OTHER)
    )
    assert [("core-api", 1)] == sources(about_transaction(tmp_path, PAYMENT))


def test_a_request_that_only_looks_is_not_followed(tmp_path: Path) -> None:
    """It is counted: those who wait for an end ask often. As a request it is found."""
    (tmp_path / "core-api.log").write_bytes(
        said(1, request_id="r-9", transaction_id=PAYMENT, method="GET")
        + said(2, request_id="r-1", transaction_id=PAYMENT, method="POST")
    )
    (tmp_path / "router.log").write_bytes(routed(1, "r-9"))
    found = about_transaction(tmp_path, PAYMENT)
    assert ([("core-api", 2)], ["r-1"], 1) == (sources(found), found.request_ids, found.readings)
    assert ["core-api", "router"] == sorted(p for p, _s in sources(about_request(tmp_path, "r-9")))


@pytest.mark.parametrize(
    "name",
    [
        "core-api.log",
        "core-api-2026-11-23T07-00-00.000.log",
        "core-api-2026-11-23T07-00-00.000.log.gz",
        "core-api.log.1",
        "core-api.log.2.gz",
    ],
)
def test_what_was_rotated_out_is_read_too(tmp_path: Path, name: str) -> None:
    """Under the process's own name, compressed or not."""
    content = said(1, transaction_id=PAYMENT)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert [("core-api", 1)] == sources(about_transaction(tmp_path, PAYMENT))


def test_what_is_no_log_is_not_opened(tmp_path: Path) -> None:
    """A pipe would hold its reader for ever."""
    os.mkfifo(tmp_path / "pipe.log")
    (tmp_path / "folder.log").mkdir()
    (tmp_path / "notes.txt").write_bytes(said(1, transaction_id=PAYMENT))
    with pytest.raises(FolderError, match=r"has no file like core-api\.log"):
        about_transaction(tmp_path, PAYMENT)


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="none cannot be read: No such file or directory"):
        about_transaction(tmp_path / "none", PAYMENT)


def test_lines_that_are_not_json_are_passed_over(tmp_path: Path) -> None:
    """Redis' own, broken ones, such without a time: what follows them is still found."""
    good = said(1, transaction_id=PAYMENT)
    odd = [b"1:M 23 Nov 2026 * Ready", b"{", b"[]", b"null", b"\xff\xfe\x00", b"", b"[" * 100_000]
    (tmp_path / "redis.log").write_bytes(b"\n".join([*odd, good]))
    found = about_transaction(tmp_path, PAYMENT)
    assert ([("redis", 1)], []) == (sources(found), found.notes)


def test_the_console_format_is_read_too(tmp_path: Path) -> None:
    """LOG_FORMAT=console is for people; this program can read it as well."""
    line = f"2026-11-23T07:00:01.000Z  core-api  info  request  r-1  transaction_id={PAYMENT}\n"
    (tmp_path / "core-api.log").write_text(line)
    found = about_transaction(tmp_path, PAYMENT)
    assert ([("core-api", 1)], ["r-1"], []) == (sources(found), found.request_ids, found.notes)


def test_what_cannot_be_read_is_said_in_words(tmp_path: Path) -> None:
    """Only when the lines are about what was asked for."""
    (tmp_path / "core-api.log").write_text(f"2026-11-23 [info] request transaction_id={PAYMENT}\n")
    (tmp_path / "auth-api.log").write_text("2026-11-23 [info] listening\n")
    found = about_transaction(tmp_path, PAYMENT)
    assert [] == found.lines
    (note,) = found.notes
    assert "core-api.log tells of it, but 1 of its lines cannot be read: no time in them" == note


def test_a_half_written_last_line_is_no_fault(tmp_path: Path) -> None:
    """The process is just writing it."""
    line = said(1, transaction_id=PAYMENT)
    (tmp_path / "core-api.log").write_bytes(line + line[:-5])
    found = about_transaction(tmp_path, PAYMENT)
    assert ([("core-api", 1)], []) == (sources(found), found.notes)


@pytest.mark.parametrize("huge_bytes", [100_000, 3 * MIB])
def test_a_huge_line_is_passed_over_and_said(tmp_path: Path, huge_bytes: int) -> None:
    """Shorter or longer than a block; its neighbours are read."""
    huge = said(2, text="x" * huge_bytes, transaction_id=PAYMENT)
    (tmp_path / "core-api.log").write_bytes(
        said(1, transaction_id=PAYMENT) + huge + said(3, transaction_id=PAYMENT)
    )
    found = about_transaction(tmp_path, PAYMENT)
    assert [("core-api", 1), ("core-api", 3)] == sources(found)
    assert ["core-api.log: passed over lines of more than 64 KiB"] == found.notes


def test_of_a_large_file_the_newest_end_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the oldest, and never a part of a line as if it were one."""
    monkeypatch.setattr(logfiles, "FILE_BYTES_MAX", 2 * MIB)
    padding = said(2, text="y" * 1000) * 3000
    (tmp_path / "core-api.log").write_bytes(
        said(1, transaction_id=PAYMENT) + padding + said(3, transaction_id=PAYMENT)
    )
    found = about_transaction(tmp_path, PAYMENT)
    assert [("core-api", 3)] == sources(found)
    assert ["core-api.log is large: 2 MiB at its end were read"] == found.notes


def test_of_a_large_compressed_file_the_beginning_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end cannot be sought; a small file that unpacks to gigabytes takes no longer."""
    monkeypatch.setattr(logfiles, "FILE_BYTES_MAX", 2 * MIB)
    content = said(1, transaction_id=PAYMENT) + b"\n" * 5 * MIB + said(3, transaction_id=PAYMENT)
    (tmp_path / "core-api.log.1.gz").write_bytes(gzip.compress(content))
    found = about_transaction(tmp_path, PAYMENT)
    assert [("core-api", 1)] == sources(found)
    assert ["core-api.log.1.gz is large: 2 MiB at its beginning were read"] == found.notes


def test_the_newest_files_are_read_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is over the limit of all files is the oldest, and is named."""
    monkeypatch.setattr(logfiles, "TOTAL_BYTES_MAX", MIB)
    for age_seconds, name in enumerate(["b.log", "c.log", "a.log"]):
        path = tmp_path / name
        path.write_bytes(said(age_seconds, transaction_id=PAYMENT) + b"\n" * (MIB // 2))
        os.utime(path, (1e9 - age_seconds, 1e9 - age_seconds))
    found = about_transaction(tmp_path, PAYMENT)
    assert "b" in {line.process for line in found.lines}
    assert "a" not in {line.process for line in found.lines}
    assert "a.log and older files were not read: the newest 1 MiB of logs are" == found.notes[-1]


def test_the_number_of_lines_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that was asked for all day does not fill the memory."""
    monkeypatch.setattr(logfiles, "LINES_MAX", 10)
    (tmp_path / "core-api.log").write_bytes(said(1, transaction_id=PAYMENT) * 30)
    found = about_transaction(tmp_path, PAYMENT)
    assert 10 == len(found.lines)
    assert ["there are more lines: 10 of the newest files are here"] == found.notes


def test_a_damaged_or_forbidden_file_is_said_and_the_rest_is_read(tmp_path: Path) -> None:
    """One bad file hides nothing of the others."""
    line = said(1, transaction_id=PAYMENT)
    (tmp_path / "core-api.log").write_bytes(line)
    (tmp_path / "router.log.1.gz").write_bytes(b"no gzip at all")
    (tmp_path / "router.log.2.gz").write_bytes(gzip.compress(line * 100)[:-20])
    found = about_transaction(tmp_path, PAYMENT)
    assert ("core-api", 1) in sources(found)
    assert [
        "router.log.1.gz could not be read to its end: it is damaged",
        "router.log.2.gz could not be read to its end: it is damaged",
    ] == sorted(found.notes)


def test_a_large_log_is_not_held_in_memory(tmp_path: Path) -> None:
    """32 MiB of lines, and of one line: a few MiB at any time."""
    (tmp_path / "core-api.log").write_bytes(said(1, text="z" * 1000) * (32 * MIB // 1050))
    (tmp_path / "redis.log").write_bytes(b"x" * 32 * MIB)
    tracemalloc.start()
    try:
        found = about_transaction(tmp_path, PAYMENT)
        _now, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 2 == found.files
    assert peak_bytes < 8 * MIB


@given(st.lists(st.binary(max_size=200) | st.just(PAYMENT.encode()) | st.just(b"\n")))
def test_no_bytes_whatever_break_the_reading(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    """As a plain file, and as one that says it is compressed."""
    folder = tmp_path_factory.mktemp("logs")
    (folder / "a.log").write_bytes(b"".join(pieces))
    (folder / "b.log.gz").write_bytes(b"".join(pieces))
    assert [] == about_transaction(folder, PAYMENT).lines


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    )
)
def test_no_field_whatever_breaks_the_reading(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    """A line is found by its transaction, whatever its other fields are."""
    folder = tmp_path_factory.mktemp("logs")
    odd = said(1, transaction_id=value, request_id=PAYMENT) + said(2, transaction_id=PAYMENT)
    when = json.dumps({"transaction_id": PAYMENT, "time": value, "ts": value}).encode() + b"\n"
    (folder / "a.log").write_bytes(odd + when)
    assert 2 in [second for _process, second in sources(about_transaction(folder, PAYMENT))]
