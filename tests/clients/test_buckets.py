"""What `put` has said is stored survives the process and the machine; many puts share one wait for the disk."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from inbound.clients import StoredObject
from inbound.clients import buckets as module
from inbound.clients.buckets import LARGE, Buckets
from inbound.clients.redo import Record, RedoLog, left_behind

METADATA = {"x-amz-key-v2": "k"}


DONE = b"".join(Record(when=0, head=b"", body=b"").encoded())  # a log's mark


def crash(directory: Path, other: Path, *, boot: str = "", placed: bool = False) -> None:
    """What a process that was killed right now would leave, in another directory; `boot` is the machine's last one.

    Unless `placed`, it is killed before the log says that the objects have their places.
    """
    shutil.copytree(directory, other)
    for path in (other / ".log").glob("*.log") if not placed else ():
        octets = path.read_bytes()
        assert DONE in octets
        path.write_bytes(octets.replace(DONE, b""))
    if boot:
        for path in (other / ".log").glob("*.log"):
            first, _, rest = path.read_bytes().partition(b"\n")
            path.write_bytes(first[: -len(boot)] + boot.encode() + b"\n" + rest)


async def stored(buckets: Buckets, count: int) -> None:
    puts = [buckets.put("mail", f"in/{number}", b"m%d" % number, METADATA) for number in range(count)]
    assert [True] * count == await asyncio.gather(*puts)


async def read(buckets: Buckets, count: int) -> list[StoredObject]:
    return [await buckets.get("mail", f"in/{number}") for number in range(count)]


def whole(count: int) -> list[StoredObject]:
    return [StoredObject(body=b"m%d" % number, metadata=METADATA) for number in range(count)]


def test_puts_at_the_same_time_are_all_stored_and_few_logs_are_written(tmp_path: Path) -> None:
    async def story() -> None:
        buckets = Buckets(tmp_path)
        await stored(buckets, 200)
        assert whole(200) == await read(buckets, 200)
        assert len(list((tmp_path / ".log").glob("*.log"))) == 1
        await buckets.close()
        assert list((tmp_path / ".log").glob("*.log")) == []
        assert list((tmp_path / "mail" / ".parts").iterdir()) == []
        assert whole(200) == await read(buckets, 200)

    asyncio.run(story())


@pytest.mark.parametrize("boot", ["", "00000000-0000-0000-0000-000000000000"])
def test_objects_that_never_got_their_places_are_put_there_at_the_next_start(tmp_path: Path, boot: str) -> None:
    async def story() -> None:
        buckets = Buckets(tmp_path / "one")
        await stored(buckets, 5)
        crash(tmp_path / "one", tmp_path / "two", boot=boot)
        shutil.rmtree(tmp_path / "two" / "mail")
        again = Buckets(tmp_path / "two")
        await again.recover()
        assert whole(5) == await read(again, 5)
        assert list((tmp_path / "two" / ".log").glob("*.log")) == []
        await buckets.close()

    asyncio.run(story())


@pytest.mark.parametrize("damage", [b"", b"\0\0", b"m0 and more"])
@pytest.mark.parametrize("suffix", ["", ".metadata.json"])
def test_what_lies_half_written_when_the_machine_has_gone_down_is_made_anew(
    tmp_path: Path, damage: bytes, suffix: str
) -> None:
    async def story() -> None:
        buckets = Buckets(tmp_path / "one")
        await stored(buckets, 3)
        crash(tmp_path / "one", tmp_path / "two", boot="00000000-0000-0000-0000-000000000000")
        (tmp_path / "two" / "mail" / "in" / f"0{suffix}").write_bytes(damage)
        again = Buckets(tmp_path / "two")
        await again.recover()
        assert whole(3) == await read(again, 3)
        await buckets.close()

    asyncio.run(story())


def test_while_the_machine_stays_up_nothing_that_is_there_is_touched(tmp_path: Path) -> None:
    async def story() -> None:
        buckets = Buckets(tmp_path / "one")
        await stored(buckets, 1)
        crash(tmp_path / "one", tmp_path / "two")
        (tmp_path / "two" / "mail" / "in" / "0").write_bytes(b"the owner's own")
        again = Buckets(tmp_path / "two")
        await again.recover()
        assert (await again.get("mail", "in/0")).body == b"the owner's own"
        await buckets.close()

    asyncio.run(story())


def test_what_a_consumer_has_deleted_is_not_stored_once_more_by_the_next_process(tmp_path: Path) -> None:
    async def story() -> None:
        buckets = Buckets(tmp_path / "one")
        await stored(buckets, 2)
        for path in (tmp_path / "one" / "mail" / "in").glob("0*"):
            path.unlink()
        crash(tmp_path / "one", tmp_path / "two", placed=True)
        again = Buckets(tmp_path / "two")
        await again.recover()
        assert sorted(path.name for path in (tmp_path / "two" / "mail" / "in").iterdir()) == ["1", "1.metadata.json"]
        assert list((tmp_path / "two" / ".log").glob("*.log")) == []
        await buckets.close()

    asyncio.run(story())


def test_of_an_object_that_was_replaced_the_last_is_kept_also_when_the_machine_goes_down(tmp_path: Path) -> None:
    async def story() -> None:
        buckets = Buckets(tmp_path / "one")
        await stored(buckets, 1)
        assert await buckets.put("mail", "in/0", b"second", METADATA, replaces=True) is True
        assert await buckets.put("mail", "in/0", b"third", METADATA, replaces=True) is True
        assert await buckets.put("mail", "in/0", b"late", METADATA) is False
        assert (await buckets.get("mail", "in/0")).body == b"third"
        for number, boot in enumerate(("", "00000000-0000-0000-0000-000000000000")):
            other = tmp_path / f"crashed{number}"
            crash(tmp_path / "one", other, boot=boot)
            (other / "mail" / "in" / "0").write_bytes(b"second" if not boot else b"")
            again = Buckets(other)
            await again.recover()
            assert (await again.get("mail", "in/0")).body == b"third"
        await buckets.close()

    asyncio.run(story())


DELETIONS = 20  # that must have been met; before each, a put had stored the object
CONSUMER = """
import contextlib, os, pathlib, sys
place, told, suffixes = pathlib.Path(sys.argv[1]), open(sys.argv[2], "ab", buffering=0), sys.argv[3:]
print("ready", flush=True)
while os.getppid() == int(os.environ["PARENT"]):
    deleted = 0
    for suffix in suffixes:
        with contextlib.suppress(FileNotFoundError):
            (place / f"k{suffix}").unlink()
            deleted += 1
    if deleted:
        told.write(b".")
        with contextlib.suppress(OSError):
            place.rmdir()
"""


@pytest.mark.parametrize("order", [("", ".metadata.json"), (".metadata.json", "")], ids=["object", "metadata"])
@pytest.mark.parametrize("size", [3, LARGE + 1], ids=["small", "large"])
def test_a_consumer_that_deletes_all_the_time_makes_no_put_fail(
    tmp_path: Path, order: tuple[str, str], size: int
) -> None:
    """What is deleted first, the object or its metadata; and the directory behind them."""
    environment, deletions = {"PARENT": str(os.getpid())}, tmp_path / "deletions"
    deletions.touch()
    command = [sys.executable, "-c", CONSUMER, str(tmp_path / "mail" / "in"), str(deletions), *order]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as consumer:
        try:
            assert consumer.stdout is not None
            consumer.stdout.readline()

            async def story() -> list[object]:
                buckets = Buckets(tmp_path)
                outcomes: list[object] = []
                async with asyncio.timeout(40):
                    while len(outcomes) < 160 or deletions.stat().st_size < DELETIONS:
                        puts = [buckets.put("mail", "in/k", b"x" * size, METADATA) for _ in range(4)]
                        outcomes += await asyncio.gather(*puts, return_exceptions=True)
                await buckets.close()
                return outcomes

            assert set(asyncio.run(story())) <= {True, False}
        finally:
            consumer.kill()


@pytest.mark.parametrize("gone", ["k", "k.metadata.json"])
def test_what_is_taken_between_the_look_and_the_place_was_stored_and_what_nobody_can_read_is_put_anew(
    tmp_path: Path, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken_meanwhile(path: str) -> bool:
        (tmp_path / "mail" / gone).unlink(missing_ok=True)
        return is_kept(path)

    is_kept = module._is_kept
    monkeypatch.setattr(module, "_is_kept", taken_meanwhile)

    async def story() -> bool:
        buckets = Buckets(tmp_path)
        await buckets.put("mail", "k", b"x", METADATA)
        new = await buckets.put("mail", "k", b"x", METADATA)
        await buckets.close()
        return new

    assert asyncio.run(story()) is (gone != "k")
    assert sorted(path.name for path in (tmp_path / "mail").glob("k*")) == (
        ["k.metadata.json"] if gone == "k" else ["k", "k.metadata.json"]
    )


@pytest.mark.parametrize("size", [1, LARGE + 1])
def test_what_is_there_already_is_not_written_again(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> list[bool]:
        buckets = Buckets(tmp_path)
        found = [await buckets.put("mail", "k", b"x" * size, METADATA)]
        monkeypatch.setattr(module, "write", lambda *_, **__: pytest.fail("it was written again"))
        found += [await buckets.put("mail", "k", b"y" * size, METADATA)]
        await buckets.close()
        return found

    assert asyncio.run(story()) == [True, False]


def test_a_log_that_ends_in_the_middle_of_a_record_gives_what_stands_before(tmp_path: Path) -> None:
    async def story() -> None:
        buckets = Buckets(tmp_path / "one")
        await stored(buckets, 1)
        await buckets.put("mail", "in/1", b"m1", METADATA)
        crash(tmp_path / "one", tmp_path / "two")
        shutil.rmtree(tmp_path / "two" / "mail")
        (torn,) = (tmp_path / "two" / ".log").glob("*.log")
        torn.write_bytes(torn.read_bytes()[:-1])
        again = Buckets(tmp_path / "two")
        await again.recover()
        assert whole(1) == await read(again, 1)
        assert not (tmp_path / "two" / "mail" / "in" / "1").exists()
        await buckets.close()

    asyncio.run(story())


def test_the_log_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    async def story() -> None:
        living, other = Buckets(tmp_path), Buckets(tmp_path)
        await stored(living, 1)
        await other.recover()
        assert len(list((tmp_path / ".log").glob("*.log"))) == 1
        await living.close()

    asyncio.run(story())


def test_of_two_processes_the_first_to_store_wins_also_after_a_crash(tmp_path: Path) -> None:
    async def story() -> None:
        one, other = Buckets(tmp_path / "one"), Buckets(tmp_path / "one")
        outcomes = await asyncio.gather(one.put("mail", "k", b"one", {}), other.put("mail", "k", b"other", {}))
        assert sorted(outcomes) == [False, True]
        winner = b"one" if outcomes[0] else b"other"
        assert (await one.get("mail", "k")).body == winner
        await one.close()
        await other.close()
        assert await other.put("mail", "k", b"late", {}) is False

    asyncio.run(story())


def test_of_two_records_of_one_object_the_earlier_counts(tmp_path: Path) -> None:
    later, earlier = RedoLog(tmp_path / ".log"), RedoLog(tmp_path / ".log")
    later.append([Record(when=2, head=b'["mail","k","{}"]', body=b"later")])
    earlier.append([Record(when=1, head=b'["mail","k","{}"]', body=b"earlier")])
    later.let_go()
    earlier.let_go()
    for path in (tmp_path / ".log").glob("*.log"):
        path.write_bytes(b"of another boot\n" + path.read_bytes().partition(b"\n")[2])

    async def story() -> StoredObject:
        buckets = Buckets(tmp_path)
        await buckets.recover()
        return await buckets.get("mail", "k")

    assert asyncio.run(story()) == StoredObject(body=b"earlier", metadata={})


def test_a_large_object_goes_its_own_way_and_is_not_written_twice(tmp_path: Path) -> None:
    async def story() -> None:
        buckets = Buckets(tmp_path)
        assert await buckets.put("mail", "large", b"x" * (LARGE + 1), {}) is True
        assert await buckets.put("mail", "large", b"y" * (LARGE + 1), {}) is False
        assert (await buckets.get("mail", "large")).body == b"x" * (LARGE + 1)
        assert not (tmp_path / ".log").exists()

    asyncio.run(story())


def test_one_name_that_cannot_be_does_not_harm_the_others(tmp_path: Path) -> None:
    async def story() -> None:
        buckets = Buckets(tmp_path)
        await buckets.put("mail", "a", b"a", {})
        puts = (buckets.put("mail", "a/b", b"b", {}), buckets.put("mail", "c", b"c", {}))
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
        assert [type(outcome).__name__ for outcome in outcomes] == ["PermanentFailure", "bool"]
        await buckets.close()

    asyncio.run(story())


def test_garbage_in_the_place_of_a_log_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_bytes(b"inbound redo log 1 \nredo" + b"\xff" * 100)
    (left,) = left_behind(tmp_path)
    assert list(left.records()) == []


def test_the_place_of_buckets_is_marked_for_ext4_as_the_top_of_hierarchies(tmp_path: Path) -> None:
    async def run() -> None:
        buckets = Buckets(tmp_path / "s3")
        await stored(buckets, 1)
        await buckets.close()

    asyncio.run(run())

    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True
    ).stdout.strip()
    if kind != "ext2/ext3":  # what stat(1) calls ext4 too
        pytest.skip(f"only ext4 has the mark, and {tmp_path} lies on {kind}")
    listed = subprocess.run(["lsattr", "-d", tmp_path / "s3"], capture_output=True, text=True, check=True)
    assert "T" in listed.stdout.split()[0]


def test_where_a_file_system_has_no_such_mark_buckets_work_all_the_same() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:

        async def run() -> bool:
            buckets = Buckets(Path(memory) / "s3")
            first = await buckets.put("mail-in", "a", b"octets", {})
            await buckets.close()
            return first

        assert asyncio.run(run())
