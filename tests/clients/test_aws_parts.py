"""Large objects go in parts: bounded in memory, whole or not at all, with nothing left behind."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from inbound.clients import Octets, Terms
from inbound.clients import aws as module
from inbound.clients import reasons as why
from inbound.clients.aws import AwsCloud
from inbound.clients.aws_parts import PART
from inbound.errors import Failure, PermanentFailure, TemporaryFailure
from tests.aws import bucket, client
from tests.scripted import Act, answer, scripted

LARGE = os.urandom(2 * PART + 5)
BEGUN = answer(200, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
PARTED = answer(200, ETag='"e"')
WHOLE = answer(200, "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>")
ABORTED = answer(204)


@pytest.fixture(autouse=True)
def _few_tries(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    del aws
    monkeypatch.setattr(module, "TRIES", 1)


def test_a_large_object_is_stored_whole_with_its_terms_and_the_first_wins(aws: str) -> None:
    name = bucket(aws)
    terms = Terms(storage_class="STANDARD_IA", tags={"a": "b"}, content_type="message/rfc822")

    async def work() -> None:
        async with AwsCloud(region="us-east-1", endpoint_url=aws) as cloud:
            put = cloud.put
            assert await put(name, "k", Octets(LARGE), metadata={"a": "b"}, terms=terms) is True
            assert await put(name, "k", LARGE[::-1], metadata={}) is False
            assert (await cloud.get(name, "k")).body == LARGE
            assert await put(name, "k", LARGE[::-1], metadata={}, terms=Terms(replaces=True)) is True
            assert (await cloud.get(name, "k")).body == LARGE[::-1]
            assert await put(name, "k2", LARGE, metadata={"a": "b"}, terms=terms) is True

    asyncio.run(work())
    found = client("s3", aws).head_object(Bucket=name, Key="k2")
    kept = (found["ContentType"], found["StorageClass"], found["Metadata"])
    assert kept == ("message/rfc822", "STANDARD_IA", {"a": "b"})
    assert client("s3", aws).get_object_tagging(Bucket=name, Key="k2")["TagSet"] == [{"Key": "a", "Value": "b"}]
    assert "Uploads" not in client("s3", aws).list_multipart_uploads(Bucket=name)


def put(*acts: Any, terms: Terms = Terms()) -> tuple[bool | Failure, list[str]]:  # noqa: B008 - frozen
    """What comes of a large object, and what was asked: method, what of the upload, the condition."""

    async def work() -> tuple[bool | Failure, list[str]]:
        async with scripted(*acts) as script, AwsCloud(region="us-east-1", endpoint_url=script.url) as cloud:
            try:
                stored: bool | Failure = await cloud.put("bucket", "k", LARGE, metadata={}, terms=terms)
            except Failure as failure:
                stored = failure
            asked = [
                f"{one.line.split()[0]} {one.line.split()[1].partition('?')[2]} {one.fields.get('if-none-match', '')}"
                for one in script.asked
            ]
            return stored, [one.strip() for one in asked]

    return asyncio.run(work())


PARTS = ["POST uploads", *[f"PUT uploadId=u&partNumber={number}" for number in (1, 2, 3)]]
END, ABORT = "POST uploadId=u *", "DELETE uploadId=u"


def xml(status: int, code: str) -> bytes:
    return answer(status, f"<Error><Code>{code}</Code><Message>m</Message></Error>")


def test_the_condition_is_on_the_last_step() -> None:
    assert put(BEGUN, PARTED, PARTED, PARTED, WHOLE) == (True, [*PARTS, END])
    replacing = put(BEGUN, PARTED, PARTED, PARTED, WHOLE, terms=Terms(replaces=True))
    assert replacing == (True, [*PARTS, "POST uploadId=u"])


@pytest.mark.parametrize(
    ("acts", "reason", "asked"),
    [
        ([xml(403, "AccessDenied")], why.ACCESS_DENIED, PARTS[:1]),
        ([BEGUN, xml(500, "InternalError"), ABORTED], why.SERVICE_DOWN, [*PARTS[:2], ABORT]),
        ([BEGUN, PARTED, Act.CLOSE_BEHIND, ABORTED], why.UNREACHABLE, [*PARTS[:3], ABORT]),
        ([BEGUN, PARTED, PARTED, PARTED, xml(400, "InvalidPart"), ABORTED], why.BAD_REQUEST, [*PARTS, END, ABORT]),
        # Answered 200, and an error all the same.
        ([BEGUN, PARTED, PARTED, PARTED, xml(200, "InternalError"), ABORTED], why.SERVICE_DOWN, [*PARTS, END, ABORT]),
        ([BEGUN, xml(503, "SlowDown"), xml(500, "InternalError")], why.THROTTLED, [*PARTS[:2], ABORT]),
    ],
)
def test_what_fails_is_aborted(acts: list[Any], reason: str, asked: list[str]) -> None:
    failed, said = put(*acts)
    assert isinstance(failed, TemporaryFailure | PermanentFailure)
    assert (reason, asked) == (failed.reason, said)


def test_an_object_that_is_there_ends_the_upload_and_is_success() -> None:
    taken = xml(412, "PreconditionFailed")
    assert put(BEGUN, PARTED, PARTED, PARTED, taken, ABORTED) == (False, [*PARTS, END, ABORT])


def test_a_conflict_begins_the_whole_upload_anew() -> None:
    conflict = [BEGUN, PARTED, PARTED, PARTED, xml(409, "ConditionalRequestConflict"), xml(404, "NoSuchUpload")]
    stored, asked = put(*conflict, BEGUN, PARTED, PARTED, PARTED, WHOLE)
    assert (stored, asked) == (True, [*PARTS, END, ABORT, *PARTS, END])
    failed, _ = put(*conflict * 3)
    assert isinstance(failed, TemporaryFailure)
    assert failed.reason == why.CONFLICT


def test_a_store_that_knows_no_condition_is_asked_first() -> None:
    unknown = [BEGUN, PARTED, PARTED, PARTED, xml(501, "NotImplemented")]
    stored, asked = put(*unknown, answer(404), WHOLE)
    assert (stored, asked) == (True, [*PARTS, END, "HEAD", "POST uploadId=u"])
    assert put(*unknown, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ABORTED) == (
        False,
        [*PARTS, END, "HEAD", ABORT],
    )


def test_a_last_step_whose_answer_was_lost_is_looked_after() -> None:
    lost = [BEGUN, PARTED, PARTED, PARTED, xml(404, "NoSuchUpload")]
    assert put(*lost, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") == (True, [*PARTS, END, "HEAD"])
    failed, asked = put(*lost, answer(404), xml(404, "NoSuchUpload"))
    assert isinstance(failed, TemporaryFailure)  # somebody has ended the upload: all of it may be tried again
    assert asked == [*PARTS, END, "HEAD", ABORT]
    failed, asked = put(*lost, xml(404, "NoSuchUpload"), terms=Terms(replaces=True))
    assert isinstance(failed, TemporaryFailure)  # whether what is there is ours cannot be told
    assert asked == [*PARTS, "POST uploadId=u", ABORT]


def test_an_upload_that_nobody_waits_for_any_longer_is_aborted() -> None:
    class Slow:
        def __len__(self) -> int:
            return 3 * PART

        def pieces(self, octets: int) -> Iterator[bytes]:
            for _ in range(3):
                started.set()
                loop.run_until_complete(asyncio.sleep(0.1))
                yield bytes(octets)

    started, loop = threading.Event(), asyncio.new_event_loop()

    async def work() -> list[str]:
        async with (
            scripted(BEGUN, PARTED, ABORTED) as script,
            AwsCloud(region="us-east-1", endpoint_url=script.url) as cloud,
        ):
            putting = asyncio.ensure_future(cloud.put("bucket", "k", Slow(), metadata={}))
            await asyncio.to_thread(started.wait, 5)
            putting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await putting
            for _ in range(100):
                if script.asked[-1].line.startswith("DELETE"):
                    break
                await asyncio.sleep(0.02)
            return [one.line.split()[0] for one in script.asked]

    assert asyncio.run(work()) == ["POST", "DELETE"]
    loop.close()


MEMORY = """
import asyncio, pathlib, re, sys
from inbound.clients.aws import AwsCloud
from inbound.seal import Sealing, enveloping, committing

def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) // 1024

async def main():
    size, form = 40 * 1024 * 1024, {"ses": enveloping, "s3ec": committing}[sys.argv[2]]
    async with AwsCloud(region="us-east-1", endpoint_url=sys.argv[1]) as cloud:
        content = b"x" * (1024 * 1024)
        await cloud.put("bucket", "small", content, metadata={})
        content *= 40
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # the highest is the present one
        before = peak()
        sealed = Sealing(content, form(size, bytes(32), b"w", {}))
        assert await cloud.put("bucket", "large", sealed, metadata=sealed.metadata)
        print(peak() - before)

asyncio.run(main())
"""


@pytest.mark.parametrize("form", ["ses", "s3ec"])
def test_forty_megabytes_are_sealed_and_stored_within_a_few_parts_of_memory(form: str) -> None:
    async def work() -> int:
        async with scripted(PARTED, BEGUN, *[PARTED] * 6, WHOLE) as script:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", MEMORY, script.url, form, stdout=subprocess.PIPE
            )
            said, _ = await process.communicate()
            assert [len(one.content) for one in script.asked[2:-1]] == [PART] * 5 + [16]
            return int(said)

    more = asyncio.run(work())
    print("MB more:", more)  # noqa: T201
    assert more < 4 * PART // 2**20
