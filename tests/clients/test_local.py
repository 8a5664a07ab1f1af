"""The cloud in a directory keeps what it promised, through crashes and against other processes, and inside its walls."""

import asyncio
import json
import logging
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inbound.actions.s3 import open_object
from inbound.clients import Listed, StoredObject, function_queue
from inbound.clients.buckets import Buckets
from inbound.clients.local import LocalCloud
from inbound.clients.reasons import (
    BUCKET_MISSING,
    CONTEXT_MISMATCH,
    DISK,
    FUNCTION_ERROR,
    FUNCTION_MISSING,
    KEY_MISSING,
    NAME_REFUSED,
    OBJECT_MISSING,
)
from inbound.errors import Failure, PermanentFailure, TemporaryFailure
from tests.actions.letters import ACCOUNT, CONTENT, REGION, TOPIC, local

CONTEXT = {"aws:ses:message-id": "m", "aws:ses:rule-name": "r"}


def put(cloud: LocalCloud, bucket: str, key: str, body: bytes, **metadata: str) -> bool:
    return asyncio.run(cloud.put(bucket, key, body, metadata=metadata))


def get(cloud: LocalCloud, bucket: str, key: str) -> StoredObject:
    return asyncio.run(cloud.get(bucket, key))


def reason(caught: pytest.ExceptionInfo[Failure]) -> str:
    return caught.value.reason


def test_an_object_is_a_file_with_its_metadata_beside_it(tmp_path: Path) -> None:
    cloud = local(tmp_path)
    assert put(cloud, "mail-support", "in/abc", b"octets\r\n", colour="blue")
    assert (tmp_path / "s3/mail-support/in/abc").read_bytes() == b"octets\r\n"
    assert json.loads((tmp_path / "s3/mail-support/in/abc.metadata.json").read_text()) == {"colour": "blue"}
    assert StoredObject(body=b"octets\r\n", metadata={"colour": "blue"}) == get(cloud, "mail-support", "in/abc")


async def keys_of(cloud: LocalCloud, bucket: str, prefix: str = "") -> list[str]:
    return [one.key async for one in cloud.list_objects(bucket, prefix)]


@settings(max_examples=40)
@given(
    keys=st.sets(st.text(st.sampled_from("ab./-%A\u00fc\U0001f600~"), min_size=1, max_size=6), max_size=12),
    data=st.data(),
)
def test_a_listing_has_the_keys_with_the_prefix_in_the_order_of_s3(keys: set[str], data: st.DataObject) -> None:
    fitting = {key for key in keys if not any(other.startswith(f"{key}/") for other in keys)}
    prefix = data.draw(st.sampled_from(["", *(key[:at] for key in fitting for at in range(1, len(key) + 1))]))
    with tempfile.TemporaryDirectory() as place:
        cloud = local(Path(place))
        for key in fitting:
            put(cloud, "bucket", key, key.encode("utf-8"))
        put(cloud, "bucket", "zz", b"")
        expected = sorted(
            (key for key in {*fitting, "zz"} if key.startswith(prefix)), key=lambda key: key.encode("utf-8")
        )
        assert expected == asyncio.run(keys_of(cloud, "bucket", prefix))


def test_a_listing_tells_size_and_time(tmp_path: Path) -> None:
    cloud = local(tmp_path)
    before = time.time()
    put(cloud, "bucket", "in/one", b"12345", colour="blue")

    async def found() -> list[Listed]:
        return [one async for one in cloud.list_objects("bucket", "in/")]

    (one,) = asyncio.run(found())
    assert (one.key, one.size) == ("in/one", 5)
    assert before - 1 < one.modified < time.time() + 1


def test_an_object_is_deleted_with_its_metadata_and_may_be_deleted_again(tmp_path: Path) -> None:
    cloud = local(tmp_path)
    for key in ("in/one", "in/two"):
        put(cloud, "bucket", key, b"octets")
    for _ in range(2):
        asyncio.run(cloud.delete_object("bucket", "in/one"))
        assert asyncio.run(keys_of(cloud, "bucket")) == ["in/two"]
    assert sorted(path.name for path in (tmp_path / "s3/bucket/in").iterdir()) == ["two", "two.metadata.json"]
    asyncio.run(cloud.delete_object("bucket", "in"))  # what many keys have in common is no object
    assert put(cloud, "bucket", "in/one", b"again")


def test_a_bucket_that_is_not_there_is_neither_listed_nor_deleted_from(tmp_path: Path) -> None:
    cloud = local(tmp_path)
    for work in (keys_of(cloud, "nowhere"), cloud.delete_object("nowhere", "key")):
        with pytest.raises(PermanentFailure) as caught:
            asyncio.run(work)
        assert caught.value.reason == BUCKET_MISSING


def test_the_first_write_wins_and_a_second_says_so(tmp_path: Path) -> None:
    cloud = local(tmp_path)
    assert put(cloud, "bucket", "k", b"first", n="1")
    assert not put(cloud, "bucket", "k", b"second", n="2")
    assert StoredObject(body=b"first", metadata={"n": "1"}) == get(cloud, "bucket", "k")


def test_nobody_else_on_the_machine_can_read_mail_or_keys(tmp_path: Path) -> None:
    cloud = local(tmp_path / "data")
    put(cloud, "bucket", "k", b"first")
    asyncio.run(cloud.generate_data_key("alias/a", CONTEXT))
    modes = {path: path.stat().st_mode & 0o077 for path in (tmp_path / "data").rglob("*")}
    assert dict.fromkeys(modes, 0) == modes


def _write(data_dir: Path, number: int, start: object, wins: object) -> None:
    cloud = local(data_dir)
    start.wait()  # type: ignore[attr-defined]
    for key in range(20):
        if put(cloud, "bucket", f"k{key}", f"body {number}".encode() * 1000, by=str(number)):
            wins.put(key)  # type: ignore[attr-defined]


def test_between_processes_one_write_wins_and_its_metadata_are_its_own(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, wins = context.Barrier(4), context.Queue()
    writers = [context.Process(target=_write, args=(tmp_path, number, start, wins)) for number in range(4)]
    for writer in writers:
        writer.start()
    won = sorted(wins.get(timeout=50) for _ in range(20))
    for writer in writers:
        writer.join(timeout=10)
    assert list(range(20)) == won
    cloud = local(tmp_path)
    for key in range(20):
        stored = get(cloud, "bucket", f"k{key}")
        assert f"body {stored.metadata['by']}".encode() * 1000 == stored.body


def test_metadata_left_by_a_writer_that_died_are_not_taken_for_the_object_s(tmp_path: Path) -> None:
    cloud = local(tmp_path)
    put(cloud, "bucket", "other", b"x")
    (tmp_path / "s3/bucket/k.metadata.json").write_text('{"by": "the dead"}')
    with pytest.raises(PermanentFailure) as caught:
        get(cloud, "bucket", "k")
    assert reason(caught) == OBJECT_MISSING
    assert put(cloud, "bucket", "k", b"body", by="the living")
    assert get(cloud, "bucket", "k").metadata == {"by": "the living"}


@pytest.mark.parametrize(
    ("key", "file"),
    [
        ("in/id", "in/id"),
        ("/emails/id", "%/emails/id"),
        ("a//b", "a/%/b"),
        ("../../etc/passwd", "%2E./%2E./etc/passwd"),
        ("./x", "%2E/x"),
        (".hidden", "%2Ehidden"),
        ("a.metadata.json", "a%2Emetadata.json"),
        ("50%", "50%25"),
        ("ü/\0", "%C3%BC/%00"),
    ],
)
def test_every_key_has_a_file_of_its_own_inside_the_bucket(tmp_path: Path, key: str, file: str) -> None:
    cloud = local(tmp_path)
    assert put(cloud, "bucket", key, b"x")
    assert (tmp_path / "s3/bucket" / file).read_bytes() == b"x"
    assert get(cloud, "bucket", key).body == b"x"


@given(st.text(st.sampled_from("./%\\a\0ü~ ") | st.characters(codec="utf-8"), min_size=1, max_size=30))
def test_no_key_leads_out_of_its_bucket(key: str) -> None:
    path = Buckets(Path("/data/s3"))._path("bucket", key)
    assert os.path.normpath(path) == path
    assert path.startswith("/data/s3/bucket/")


@pytest.mark.parametrize(
    "bucket", ["..", ".", "", "a", "A-bucket", "a/b", "a..b", "x" * 64, "bucket\n", "-ab", "ab\0c"]
)
def test_what_is_no_bucket_name_is_refused(tmp_path: Path, bucket: str) -> None:
    with pytest.raises(PermanentFailure) as caught:
        put(local(tmp_path / "data"), bucket, "k", b"x")
    assert reason(caught) == NAME_REFUSED
    assert list(tmp_path.iterdir()) == []


def test_an_object_cannot_stand_where_keys_go_on_nor_the_other_way_round(tmp_path: Path) -> None:
    cloud = local(tmp_path)
    put(cloud, "bucket", "a", b"x")
    put(cloud, "bucket", "b/c", b"x")
    for key in ("a/b", "b"):
        with pytest.raises(PermanentFailure) as caught:
            put(cloud, "bucket", key, b"x")
        assert reason(caught) == NAME_REFUSED
    with pytest.raises(PermanentFailure) as caught:
        put(cloud, "bucket", "long/" + "x" * 300, b"x")
    assert reason(caught) == NAME_REFUSED


def test_a_bucket_or_object_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    cloud = local(tmp_path)
    with pytest.raises(PermanentFailure) as caught:
        get(cloud, "bucket", "k")
    assert reason(caught) == BUCKET_MISSING
    put(cloud, "bucket", "a/b", b"x")
    for key in ("k", "a", "a/b/c"):
        with pytest.raises(PermanentFailure) as caught:
            get(cloud, "bucket", key)
        assert reason(caught) == OBJECT_MISSING


def test_a_disk_that_takes_nothing_is_a_temporary_failure_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "s3").symlink_to("/proc/self")  # nothing can be made there
    with pytest.raises(TemporaryFailure) as caught:
        put(local(tmp_path), "bucket", "k", b"x")
    assert reason(caught) == DISK


FULL = """
import asyncio, resource, signal, sys
from pathlib import Path
from inbound.errors import TemporaryFailure
from tests.actions.letters import local
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    asyncio.run(local(Path(sys.argv[1])).put("bucket", "k", b"x" * 2_000_000, metadata={}))
except TemporaryFailure as failure:
    print(failure.reason)
"""


def test_a_disk_that_is_full_half_way_is_a_temporary_failure_and_there_is_no_object(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, timeout=50, check=False)
    assert done.stdout.decode().strip() == DISK, done.stderr.decode()
    assert [path.name for path in (tmp_path / "s3").rglob("*") if path.is_file()] == []


WRITER = """
import asyncio, sys
from pathlib import Path
from dataclasses import replace
from inbound.actions.s3 import S3
from tests.actions.letters import letter, local
async def story():
    cloud, action, one = local(Path(sys.argv[1])), S3(bucket="mail", kms_key="alias/k"), letter()
    for number in range(100_000):
        await action.perform(replace(one, mail=replace(one.mail, message_id=f"{number:040}")), cloud)
        print(f"{number:040}", flush=True)
asyncio.run(story())
"""


def test_what_was_stored_is_whole_after_the_writer_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        told = [writer.stdout.readline().decode().strip() for _ in range(20)]
        writer.kill()
        told += [line.strip() for line in writer.stdout.read().decode().splitlines() if len(line) == 40]
    cloud = local(tmp_path)
    assert {asyncio.run(open_object(cloud, "mail", key)) for key in told} == {CONTENT}
    visible = [path.name for path in (tmp_path / "s3/mail").iterdir() if re.fullmatch(r"\d{40}", path.name)]
    assert {asyncio.run(open_object(cloud, "mail", key)) for key in visible} == {CONTENT}


def test_what_dead_writers_left_half_written_is_swept_once_it_is_old(tmp_path: Path) -> None:
    put(local(tmp_path), "bucket", "k", b"x")
    old, new = (tmp_path / f"s3/bucket/.parts/{name}" for name in ("old", "new"))
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (0, 0))

    async def start() -> None:
        async with local(tmp_path):
            pass

    asyncio.run(start())
    assert (old.exists(), new.exists()) == (False, True)


def test_a_data_key_opens_with_its_context_only(tmp_path: Path) -> None:
    cloud = local(tmp_path)
    made = asyncio.run(cloud.generate_data_key("alias/support", CONTEXT))
    assert len(made.plaintext) == 32
    assert re.fullmatch(rf"arn:aws:kms:{REGION}:{ACCOUNT}:key/[0-9a-f-]{{36}}", made.key_arn)
    same = dict(reversed(CONTEXT.items()))
    assert made.plaintext == asyncio.run(local(tmp_path).decrypt_data_key(made.wrapped, same))
    for wrapped, context in [
        (made.wrapped, {**CONTEXT, "aws:ses:rule-name": "another"}),
        (made.wrapped, {}),
        (made.wrapped[:-1] + bytes([made.wrapped[-1] ^ 1]), CONTEXT),
        (b"short", CONTEXT),
    ]:
        with pytest.raises(PermanentFailure) as caught:
            asyncio.run(cloud.decrypt_data_key(wrapped, context))
        assert reason(caught) == CONTEXT_MISMATCH


def test_an_alias_is_made_once_and_said_loudly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arn = f"arn:aws:kms:{REGION}:{ACCOUNT}:alias/team/support"
    with caplog.at_level(logging.WARNING):
        made = [asyncio.run(local(tmp_path).generate_data_key(name, CONTEXT)) for name in ("alias/team/support", arn)]
    assert made[0].key_arn == made[1].key_arn
    assert len(caplog.records) == 1
    assert "Keep a copy" in caplog.text
    by_id = asyncio.run(local(tmp_path).generate_data_key(made[0].key_arn, CONTEXT))
    assert by_id.key_arn == made[0].key_arn


def test_a_key_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    cloud = local(tmp_path)
    with pytest.raises(PermanentFailure) as caught:
        asyncio.run(cloud.generate_data_key("12345678-1234-1234-1234-123456789012", CONTEXT))
    assert reason(caught) == KEY_MISSING
    for name in ("support", "alias/../x", "", "alias/"):
        with pytest.raises(PermanentFailure) as caught:
            asyncio.run(cloud.generate_data_key(name, CONTEXT))
        assert reason(caught) == NAME_REFUSED


def test_a_notification_is_a_file_in_the_form_sns_hands_to_a_queue(tmp_path: Path) -> None:
    asyncio.run(local(tmp_path).publish(TOPIC, "Subject", '{"a": "ü"}'))
    files = list((tmp_path / "sns/inbound-mail").iterdir())
    written = json.loads(files[0].read_text())
    assert len(files) == 1
    assert tuple(written[key] for key in ("Type", "TopicArn", "Subject", "Message")) == (
        "Notification",
        TOPIC,
        "Subject",
        '{"a": "ü"}',
    )
    with pytest.raises(PermanentFailure) as caught:
        asyncio.run(local(tmp_path).publish("arn:aws:sns:x:1:../y", "S", "M"))
    assert reason(caught) == NAME_REFUSED


def test_a_function_that_is_waited_for_answers_or_fails(tmp_path: Path) -> None:
    functions = {"echo": ("cat",), "broken": ("false",)}
    cloud = local(tmp_path, functions)
    assert asyncio.run(cloud.invoke("echo", b'{"a":1}', wait=True)) == b'{"a":1}'
    with pytest.raises(TemporaryFailure) as caught:
        asyncio.run(cloud.invoke("broken", b"{}", wait=True))
    assert reason(caught) == FUNCTION_ERROR
    for wait in (True, False):
        with pytest.raises(PermanentFailure) as missing:
            asyncio.run(cloud.invoke("nobody", b"{}", wait=wait))
        assert reason(missing) == FUNCTION_MISSING


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - files have no events
            await asyncio.sleep(0.01)


def test_a_function_that_is_not_waited_for_is_on_the_disk_first_and_runs_after(tmp_path: Path) -> None:
    seen = tmp_path / "seen"

    async def story() -> None:
        async with local(tmp_path, {"keep": ("cp", "/dev/stdin", str(seen))}) as cloud:
            assert await cloud.invoke("keep", b'{"a":1}', wait=False) == b""
            assert [json.loads(path.read_text()) for path in (tmp_path / "lambda/queue").glob("[0-9]*")] == [
                {"function": "keep", "payload": '{"a":1}'}
            ]
            await _until(lambda: not list((tmp_path / "lambda/queue").iterdir()))

    asyncio.run(story())
    assert seen.read_text() == '{"a":1}'


def test_what_a_crash_left_in_the_queue_runs_at_the_next_start(tmp_path: Path) -> None:
    seen = tmp_path / "seen"

    crash = (
        "import asyncio, os, sys; from pathlib import Path; from tests.actions.letters import local\n"
        "async def story():\n"
        "    await local(Path(sys.argv[1]), {'keep': ('false',)}).invoke('keep', b'{\"a\":1}', wait=False)\n"
        "    os._exit(9)\n"
        "asyncio.run(story())\n"
    )

    async def restart() -> None:
        async with local(tmp_path, {"keep": ("cp", "/dev/stdin", str(seen))}):
            await _until(lambda: not list((tmp_path / "lambda/queue").iterdir()))

    died = subprocess.run([sys.executable, "-c", crash, str(tmp_path)], timeout=50, check=False)
    assert died.returncode == 9
    asyncio.run(restart())
    assert seen.read_text() == '{"a":1}'


def test_an_event_that_failed_three_times_is_kept_as_a_dead_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(function_queue, "BETWEEN_TRIES", 0.01)

    async def story() -> None:
        async with local(tmp_path, {"broken": ("sh", "-c", f"echo x >> {tmp_path}/tries; exit 1")}) as cloud:
            await cloud.invoke("broken", b"{}", wait=False)
            await _until(lambda: list((tmp_path / "lambda").glob("failed/*.json")))

    asyncio.run(story())
    assert (tmp_path / "tries").read_text() == "x\n" * 3
    assert not list((tmp_path / "lambda/queue").iterdir())


def test_a_stop_while_functions_start_and_run_leaves_their_events_in_the_queue(tmp_path: Path) -> None:
    async def story() -> None:
        async with local(tmp_path, {"slow": ("sleep", "60")}) as cloud:
            for _ in range(5):
                await cloud.invoke("slow", b"{}", wait=False)

    asyncio.run(story())
    assert len(list((tmp_path / "lambda/queue").iterdir())) == 5
