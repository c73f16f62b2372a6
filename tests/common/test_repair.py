"""`services/redis/repair.sh`: an append-only file that ends within a transaction."""

import shutil
import subprocess
from pathlib import Path

import pytest
import redis

from tests import support

LAST = "appendonlydir/appendonly.aof.1.incr.aof"
VALUES = ("", "\r\n*3\r\n", "EXEC", "x" * 12)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """A Redis's folder, and the sizes of its append-only file after each transaction."""
    folder, port, sizes = tmp_path_factory.mktemp("redis") / "data", support.free_ports(1), []
    with support.redis_server(folder, port), redis.Redis(port=port) as client:
        for value in VALUES:
            with client.pipeline() as pipeline:
                pipeline.incr("sum").set("value", value).rpush("list", value).execute()
            sizes.append((folder / LAST).stat().st_size)
        client.set("alone", "\r\n")
        sizes.append((folder / LAST).stat().st_size)
    return folder, sizes


def repair(folder: Path) -> str:
    command = ["sh", str(support.ROOT / "services/redis/repair.sh"), str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def damaged(written: Path, folder: Path, content: bytes) -> Path:
    """A copy whose append-only file has this content."""
    (folder / LAST).parent.mkdir(parents=True, exist_ok=True)
    for file in written.glob("appendonlydir/*"):
        shutil.copy(file, folder / "appendonlydir")
    (folder / LAST).write_bytes(content)
    return folder


def test_wherever_it_ends_the_transactions_before_are_kept(
    written: tuple[Path, list[int]], tmp_path: Path
) -> None:
    """Nothing of an incomplete one is left; what is removed is kept in a file."""
    source, sizes = written
    content = (source / LAST).read_bytes()
    for size in range(sizes[2], sizes[-1] + 1):
        folder = damaged(source, tmp_path, content[:size])
        repair(folder)
        kept = max(kept for kept in sizes if kept <= size)
        assert (folder / LAST).read_bytes() == content[:kept], size
        if size not in sizes:
            assert (folder / "appendonlydir/removed").read_bytes() == content[kept:size]


def test_a_file_is_repaired_that_a_rewrite_was_replacing(
    written: tuple[Path, list[int]], tmp_path: Path
) -> None:
    """Its successor is empty yet; Redis starts with what is left."""
    source, sizes = written
    folder = damaged(source, tmp_path / "data", (source / LAST).read_bytes()[: sizes[-2] - 1])
    (folder / LAST.replace(".1.", ".2.")).touch()
    with (folder / "appendonlydir/appendonly.aof.manifest").open("a") as manifest:
        manifest.write("file appendonly.aof.2.incr.aof seq 2 type i\n")
    repair(folder)
    assert (folder / LAST).stat().st_size == sizes[-3]
    port = support.free_ports(1)
    with support.redis_server(folder, port), redis.Redis(port=port) as client:
        assert client.get("sum") == b"3"


def test_other_damage_is_left_to_redis(written: tuple[Path, list[int]], tmp_path: Path) -> None:
    """A file with damage before its end is not changed, and Redis refuses it."""
    source, sizes = written
    content = (source / LAST).read_bytes()
    rest = content[sizes[1] :]
    much = rest + b"*1\r\n$4\r\nPING\r\n" * 100_000
    short = b"*1\r\n$5\r\nPING\r\n"
    wrongs = {b"\0" * 50: rest, b"x": rest, b"*1\r\n$-5\r\n": rest, short: rest}
    wrongs[b"*1\r\n$99999999\r\n"] = much
    for number, (wrong, behind) in enumerate(wrongs.items()):
        broken = content[: sizes[1]] + wrong + behind
        folder = damaged(source, tmp_path / str(number), broken)
        repair(folder)
        assert (folder / LAST).read_bytes() == broken, wrong
