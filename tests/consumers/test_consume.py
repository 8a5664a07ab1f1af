"""From an event to the message, whatever carried it and whoever wrote the object; and never another message than was told of."""

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import inbound
from inbound.actions import Action
from inbound.actions.notice import event as event_of
from inbound.actions.s3 import S3
from inbound.actions.sns import Sns
from inbound.clients.aws import AwsCloud
from inbound.consumer import Address, Limits, Message
from inbound.errors import (
    AnotherMessage,
    Failure,
    NotAllowed,
    NotAMailEvent,
    NotFound,
    NotSealedForUs,
    TooBig,
    Unconsumable,
    Undecryptable,
)
from inbound.event import lambda_event
from inbound.seal import seal
from inbound.settings import Settings
from inbound.verdicts import SpamVerdict, Status
from tests.actions.letters import ACCOUNT, ID, TOPIC, VERDICTS, letter, local
from tests.aws import bucket, client, kms_key
from tests.consumers.stored import (
    EVENTBRIDGE,
    ORIGINAL,
    OTHER_ID,
    POINTER,
    S3_EVENT,
    SES_BLOCK,
    STORED,
    performed,
    put,
    told,
)
from tests.harness import mail, receiver

SETUP = "AMAZON_SES_SETUP_NOTIFICATION"
S3_ACTION = S3(bucket="mail-support", prefix="in", topic_arn=TOPIC)


def is_the_message(message: Message | None) -> Message:
    assert message is not None
    assert (message.raw, message.subject, message.id, message.provenance.id) == (STORED, "An order", ID, ID)
    assert (message.provenance.mail_from, message.verdicts.dmarc) == ("pat@sender.example", Status.PASS)
    assert message.provenance.recipients == ("support@example.com",)
    assert (message.provenance.trusted, message.problems) == (True, ())
    return message


CARRIERS: dict[str, Callable[[str], Any]] = {
    "a notification": json.loads,
    "an SQS body, raw": lambda text: text,
    "an SQS body, wrapped": lambda text: json.dumps({"Type": "Notification", "Message": text}),
    "an SQS body, in octets": str.encode,
    "an SNS HTTP envelope": lambda text: {"Type": "Notification", "Message": text, "Signature": "x"},
    "a message as boto3 hands it out": lambda text: {"MessageId": "1", "ReceiptHandle": "x", "Body": text},
    "a Lambda record of SNS": lambda text: {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": text}}]},
    "a Lambda record of SQS": lambda text: {"Records": [{"eventSource": "aws:sqs", "body": text}]},
    "SNS in SQS in Lambda": lambda text: {"Records": [{"body": json.dumps({"Type": "Notification", "Message": text})}]},
    "one record": lambda text: {"eventSource": "aws:sqs", "body": text},
    "API Gateway": lambda text: {
        "httpMethod": "POST",
        "isBase64Encoded": True,
        "body": base64.b64encode(text.encode()).decode(),
    },
}


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_notification_leads_to_the_message_whatever_carries_it(tmp_path: Path, carrier: str) -> None:
    cloud = performed(tmp_path, S3_ACTION)
    message = is_the_message(inbound.consume(CARRIERS[carrier](told(POINTER)), cloud=cloud))
    assert (message.provenance.kind, message.provenance.rule) == ("notification", "support")
    assert (message.provenance.bucket, message.provenance.key) == ("mail-support", f"in/{ID}")
    assert message.receivedAt == "2026-10-06T09:15:02.118Z"


PLACES = {
    "an S3 event": {"Records": [S3_EVENT]},
    "an S3 event in SQS": {"Records": [{"body": json.dumps({"Records": [S3_EVENT]})}]},
    "EventBridge": EVENTBRIDGE,
    "EventBridge in SQS": {"Body": json.dumps(EVENTBRIDGE)},
    "a place": f"s3://mail-support/in/{ID}",
}


@pytest.mark.parametrize("what", PLACES)
def test_an_s3_event_or_a_place_leads_to_it_and_the_header_block_has_the_verdicts(tmp_path: Path, what: str) -> None:
    message = is_the_message(inbound.consume(PLACES[what], cloud=performed(tmp_path, S3_ACTION)))
    assert (message.provenance.kind, message.verdicts.source) == ("place", "header")
    assert (message.provenance.rule, message.provenance.sealed) == ("", "")


def test_keys_in_s3_s_own_events_are_decoded_and_in_eventbridge_s_are_not(tmp_path: Path) -> None:
    cloud = put(tmp_path, "in/a b+c%20.eml", ORIGINAL)
    record = {**S3_EVENT, "s3": {"bucket": {"name": "mail-support"}, "object": {"key": "in/a+b%2Bc%2520.eml"}}}
    bridged = {**EVENTBRIDGE, "detail": {"bucket": {"name": "mail-support"}, "object": {"key": "in/a b+c%20.eml"}}}
    for what in (record, bridged):
        message = inbound.consume(what, cloud=cloud)
        assert message is not None
        assert message.subject == "An order"


def test_a_lambda_event_leads_to_it_where_the_rule_stores(tmp_path: Path) -> None:
    event = json.loads(lambda_event(event_of(letter(content=STORED), {"type": "Lambda"})))
    cloud = performed(tmp_path, S3_ACTION)
    for prefix in ("in", "in/"):
        message = is_the_message(inbound.consume(event, cloud=cloud, bucket="mail-support", prefix=prefix))
        assert (message.provenance.kind, message.verdicts.source) == ("lambda", "event")
    with pytest.raises(NotAMailEvent, match="name the bucket"):
        inbound.consume(event, cloud=cloud)
    event["Records"][0]["ses"]["mail"]["messageId"] = "../in/" + ID
    with pytest.raises(NotAMailEvent, match="no message id"):
        inbound.consume(event, cloud=cloud, bucket="mail-support")


@pytest.mark.parametrize("content", [STORED.decode(), base64.b64encode(STORED).decode()], ids=["text", "base64"])
def test_content_in_the_event_is_the_message_and_nothing_is_fetched(content: str) -> None:
    is_the_message(inbound.consume(told({"type": "SNS"}, content)))


@pytest.mark.parametrize("action", [Sns(topic_arn=TOPIC, encoding="base64"), Sns(topic_arn=TOPIC)])
def test_what_the_sns_action_publishes_is_consumed(tmp_path: Path, action: Action) -> None:
    performed(tmp_path, action)
    (file,) = (tmp_path / "sns/inbound-mail").glob("*.json")
    is_the_message(inbound.consume(file.read_text()))


def test_octets_that_a_notification_could_not_carry_are_told_as_a_problem(tmp_path: Path) -> None:
    performed(tmp_path, Sns(topic_arn=TOPIC), content=STORED + b"\xff\xfe\r\n")
    (file,) = (tmp_path / "sns/inbound-mail").glob("*.json")
    message = inbound.consume(file.read_text())
    assert message is not None
    assert message.problems == ("octets that are no UTF-8 were replaced on the way",)


@pytest.mark.parametrize("form", ["ses", "s3ec"])
def test_a_sealed_message_is_opened_and_its_seal_names_the_rule(tmp_path: Path, form: Any) -> None:
    cloud = performed(tmp_path, S3(bucket="mail-support", kms_key="alias/support", format=form))
    message = is_the_message(inbound.consume(f"s3://mail-support/{ID}", cloud=cloud, sealed=True))
    assert (message.provenance.sealed, message.provenance.rule) == (form, "support")


def test_where_sealed_objects_are_wanted_none_in_clear_is_taken(tmp_path: Path) -> None:
    with pytest.raises(Undecryptable, match="in clear"):
        inbound.consume(told(POINTER), cloud=performed(tmp_path, S3_ACTION), sealed=True)


def test_octets_are_parsed_and_believed_only_where_the_receiver_is_named() -> None:
    message = inbound.consume(STORED)
    assert message is not None
    assert (message.provenance.trusted, message.passed("dmarc")) == (False, False)
    assert message.provenance.reason == "octets can come from anybody: name the receiver with authserv_ids"
    assert is_the_message(inbound.consume(STORED, authserv_ids={"MX.example.com"})).passed("spf", "dmarc")
    assert is_the_message(inbound.consume(STORED, authserv_ids="mx.example.com")).passed("spf", "dmarc")
    other = inbound.consume(STORED, authserv_ids={"mx.other.example"})
    assert other is not None
    assert not other.provenance.trusted


# --- what is not the message that was told of


def test_another_message_than_the_one_told_of_is_not_taken_for_it(tmp_path: Path) -> None:
    cloud = put(tmp_path, f"in/{ID}", STORED.replace(ID.encode(), OTHER_ID.encode()))
    for what in (told(POINTER), f"s3://mail-support/in/{ID}"):
        with pytest.raises(AnotherMessage):
            inbound.consume(what, cloud=cloud)


def test_an_object_that_nothing_says_the_id_of_is_not_taken_for_a_message_told_of(tmp_path: Path) -> None:
    cloud = put(tmp_path, f"in/{ID}", ORIGINAL)
    with pytest.raises(AnotherMessage, match="neither seal nor header block"):
        inbound.consume(told(POINTER), cloud=cloud)
    message = inbound.consume(f"s3://mail-support/in/{ID}", cloud=cloud)  # nobody has told anything of it
    assert message is not None
    assert (message.provenance.trusted, message.provenance.reason) == (False, "no header block on top")


def test_a_sealed_message_put_in_the_place_of_another_is_found_out(tmp_path: Path) -> None:
    cloud = performed(tmp_path, S3(bucket="mail-support", prefix="in", kms_key="alias/support"))
    event = json.loads(told(POINTER))
    event["mail"]["messageId"] = OTHER_ID
    with pytest.raises(AnotherMessage):
        inbound.consume(event, cloud=cloud)


@pytest.mark.parametrize(
    ("pins", "fine"),
    [
        ({"bucket": "mail-support"}, True),
        ({"bucket": "mail-support", "prefix": "in"}, True),
        ({"prefix": "in/"}, True),
        ({"bucket": "mail-other"}, False),
        ({"bucket": "mail-support", "prefix": "i"}, False),
        ({"bucket": "mail-support", "prefix": "in/other"}, False),
    ],
)
def test_only_the_place_that_is_named_is_fetched_from(tmp_path: Path, pins: dict[str, Any], fine: bool) -> None:
    cloud = performed(tmp_path, S3_ACTION)
    for what in (told(POINTER), S3_EVENT, f"s3://mail-support/in/{ID}"):
        if fine:
            is_the_message(inbound.consume(what, cloud=cloud, **pins))
        else:
            with pytest.raises(NotAllowed):
                inbound.consume(what, cloud=cloud, **pins)


def test_an_event_that_contradicts_the_object_is_not_trusted(tmp_path: Path) -> None:
    event = json.loads(told(POINTER))
    event["receipt"]["virusVerdict"]["status"] = "FAIL"
    message = inbound.consume(event, cloud=performed(tmp_path, S3_ACTION))
    assert message is not None
    assert not message.provenance.trusted
    assert message.provenance.reason == "the event says virus FAIL, the header block PASS"


def test_a_receiver_that_was_not_named_is_not_trusted(tmp_path: Path) -> None:
    cloud = performed(tmp_path, S3_ACTION)
    is_the_message(inbound.consume(S3_EVENT, cloud=cloud, authserv_ids=["mx.example.com", "amazonses.com"]))
    message = inbound.consume(S3_EVENT, cloud=cloud, authserv_ids=["amazonses.com"])
    assert message is not None
    assert not message.passed("spf")


# --- what brings no message, and what is no event

SETUP_EVENT = json.dumps(
    {
        "notificationType": "Received",
        "mail": {"messageId": SETUP},
        "receipt": {"action": {"type": "SNS"}},
        "content": "x",
    }
)


@pytest.mark.parametrize(
    "what",
    [
        SETUP_EVENT,
        {"Records": [{"Sns": {"Message": SETUP_EVENT}}]},
        {"Records": [{"ses": json.loads(SETUP_EVENT)}]},
        f"s3://mail/in/{SETUP}",
        f" s3://mail/in/{SETUP}\n".encode(),
        {"Records": [{**S3_EVENT, "s3": {"bucket": {"name": "mail"}, "object": {"key": f"in/{SETUP}"}}}]},
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "mail"},
        {"Records": [{**S3_EVENT, "eventName": "ObjectRemoved:Delete"}]},
        {**EVENTBRIDGE, "detail-type": "Object Deleted"},
        {"Type": "SubscriptionConfirmation", "SubscribeURL": "https://x", "Message": "You have chosen to subscribe"},
        json.dumps({"Type": "UnsubscribeConfirmation", "Message": "x"}),
    ],
)
def test_what_is_about_no_mail_is_none(what: Any) -> None:
    assert inbound.consume(what) is None
    assert inbound.records(what) == ()


@pytest.mark.parametrize(
    "what",
    [
        *(
            "",
            "no JSON",
            "[]",
            "1",
            "[" * 100_000,
            {},
            {"Records": []},
            {"Records": [1]},
            {"Records": [{}, {}]},
            None,
            1,
        ),
        *({"Message": "x"}, {"Records": [{"s3": {}}]}, {"Message": 1}, {"body": None}),
        *("s3://", "s3://bucket", "s3://bucket/", {"mail": 1, "receipt": 2}, {"Records": [{"s3": {"bucket": 1}}]}),
        {"notificationType": "Bounce", "mail": {"messageId": "1"}, "bounce": {}},
        {"detail-type": "Scheduled Event", "source": "aws.events", "detail": {}},
        {"isBase64Encoded": True, "body": "%"},
        {"mail": {"messageId": ID}, "receipt": {"action": {"type": "SNS", "encoding": "BASE64"}}, "content": "%"},
    ],
)
def test_what_is_no_event_is_said_to_be_none(what: Any) -> None:
    with pytest.raises(NotAMailEvent):
        inbound.consume(what)


def test_a_bounce_of_mail_that_was_sent_is_told_apart() -> None:
    with pytest.raises(NotAMailEvent, match=r"mail that was sent \(Bounce\), not received"):
        inbound.consume({"notificationType": "Bounce", "mail": {"messageId": "1"}, "bounce": {}})


def test_events_inside_of_events_have_an_end() -> None:
    event = told({"type": "SNS"}, STORED.decode())
    for _ in range(4):
        event = json.dumps({"Message": event})
    is_the_message(inbound.consume(event))
    for _ in range(10):
        event = json.dumps({"Message": event[:100_000]})
    with pytest.raises(NotAMailEvent):
        inbound.consume(event)


def test_strange_values_in_an_event_do_no_harm() -> None:
    event = {"mail": {"messageId": 1, "source": []}, "receipt": {"recipients": 1, "spamVerdict": "PASS", "action": 3}}
    message = inbound.consume({**event, "content": "Subject: x\r\n\r\n", "inbound": []})
    assert message is not None
    assert (message.subject, message.verdicts.spam, message.provenance.mail_from) == ("x", None, None)
    half = {
        "mail": {"messageId": "\ud800", "source": "\ud800"},
        "receipt": {"x": 1},
        "content": "Subject: \ud800\r\n\r\n",
    }
    odd = inbound.consume(json.dumps(half))
    assert odd is not None
    assert odd.to_json().isascii()


def test_a_batch_is_divided_into_events_of_one_message(tmp_path: Path) -> None:
    cloud = performed(tmp_path, S3_ACTION)
    ses = json.loads(lambda_event(event_of(letter(content=STORED), {"type": "Lambda"})))["Records"][0]
    batch = {
        "Records": [
            {"body": told(POINTER)},
            {"body": json.dumps({"Event": "s3:TestEvent"})},
            {"Sns": {"Message": told({"type": "SNS"}, STORED.decode())}},
            S3_EVENT,
            ses,
        ]
    }
    with pytest.raises(NotAMailEvent, match="several mails"):
        inbound.consume(batch, cloud=cloud)
    found = inbound.records(batch)
    assert len(found) == 4
    for one in found:
        is_the_message(inbound.consume(one, cloud=cloud, bucket="mail-support", prefix="in"))
    assert inbound.records(json.dumps(batch)) == found


# --- what is wrong with an object


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    cloud = put(tmp_path, "a", b"")
    for place in ("s3://mail-support/none", "s3://mail-other/a", "s3://UPPER/a", "s3://mail-support/a/../a"):
        with pytest.raises(NotFound):
            inbound.consume(place, cloud=cloud)


def test_more_than_the_limit_is_too_big(tmp_path: Path) -> None:
    cloud = performed(tmp_path, S3_ACTION)
    small = Limits(message_bytes=len(STORED) - 1)
    for what in (f"s3://mail-support/in/{ID}", STORED, told({"type": "SNS"}, STORED.decode()), b"x" * 10_000):
        with pytest.raises(TooBig):
            inbound.consume(what, cloud=cloud, limits=small)
    is_the_message(inbound.consume(S3_EVENT, cloud=cloud, limits=Limits(message_bytes=len(STORED))))


def sealed_object(tmp_path: Path, form: Any = "ses") -> tuple[bytes, dict[str, str]]:
    performed(tmp_path / "kept", S3(bucket="mail-support", prefix="in", kms_key="alias/support", format=form))
    place = tmp_path / "kept/s3/mail-support/in" / ID
    return place.read_bytes(), json.loads(place.with_name(ID + ".metadata.json").read_text())


SPOILT: dict[str, Callable[[bytes, dict[str, str]], tuple[bytes, dict[str, str]]]] = {
    "a bit": lambda body, meta: (bytes([body[0] ^ 1]) + body[1:], meta),
    "the tag": lambda body, meta: (body[:-1] + bytes([body[-1] ^ 1]), meta),
    "cut off": lambda body, meta: (body[:-20], meta),
    "nothing left": lambda _, meta: (b"", meta),
    "longer": lambda body, meta: (body + b"x", meta),
    "its context": lambda body, meta: (body, {k: v.replace("support", "sales") for k, v in meta.items()}),
    "another iv": lambda body, meta: (body, {**meta, "x-amz-iv": "A" * 16, "x-amz-i": "A" * 36 + "AA=="}),
    "the key": lambda body, meta: (
        body,
        {k: base64.b64encode(b"x" * 76).decode() if k in ("x-amz-key-v2", "x-amz-3") else v for k, v in meta.items()},
    ),
}


@pytest.mark.parametrize("form", ["ses", "s3ec"])
@pytest.mark.parametrize("what", SPOILT)
def test_a_sealed_object_that_was_changed_does_not_open(tmp_path: Path, form: str, what: str) -> None:
    body, metadata = SPOILT[what](*sealed_object(tmp_path, form))
    asyncio.run(local(tmp_path / "kept").put("mail-support", "spoilt", body, metadata=metadata))
    with pytest.raises(Undecryptable):
        inbound.consume("s3://mail-support/spoilt", cloud=local(tmp_path / "kept"))


def test_a_size_that_is_not_the_stated_one_is_found_out(tmp_path: Path) -> None:
    body, metadata = sealed_object(tmp_path)
    metadata["x-amz-unencrypted-content-length"] = "1"
    asyncio.run(local(tmp_path / "kept").put("mail-support", "spoilt", body, metadata=metadata))
    with pytest.raises(Undecryptable, match="were stated"):
        inbound.consume("s3://mail-support/spoilt", cloud=local(tmp_path / "kept"))


def test_an_object_sealed_elsewhere_is_not_sealed_for_us(tmp_path: Path) -> None:
    cloud = put(tmp_path, "theirs", *sealed_object(tmp_path))
    with pytest.raises(NotSealedForUs, match="no such key"):
        inbound.consume("s3://mail-support/theirs", cloud=cloud)


@pytest.mark.parametrize("metadata", [{"x-amz-key": "AAAA"}, {"x-amz-key-v2": "?"}, {"x-amz-3": "?"}])
def test_a_form_that_is_not_known_is_not_sealed_for_us(tmp_path: Path, metadata: dict[str, str]) -> None:
    with pytest.raises(NotSealedForUs):
        inbound.consume("s3://mail-support/odd", cloud=put(tmp_path, "odd", b"x", metadata))


def test_every_failure_of_a_consumer_is_permanent_and_has_a_reason() -> None:
    assert issubclass(Unconsumable, Failure)
    with pytest.raises(Unconsumable) as caught:
        inbound.consume({})
    assert (caught.value.reason, caught.value.detail) == ("no event of a mail", "JSON with nothing in it")


# --- written by SES itself


def test_an_object_that_ses_wrote_under_a_key_is_consumed(aws: str) -> None:
    name, key = bucket(aws), kms_key(aws)
    context = {
        "aws:ses:message-id": ID,
        "aws:ses:rule-name": "encrypt-to-s3",
        "aws:ses:source-account": ACCOUNT,
        "kms_cmk_id": key,
    }
    made = client("kms", aws).generate_data_key(KeyId=key, KeySpec="AES_256", EncryptionContext=context)
    sealed = seal(SES_BLOCK + ORIGINAL, made["Plaintext"], made["CiphertextBlob"], context)
    client("s3", aws).put_object(Bucket=name, Key=f"in/{ID}", Body=sealed.ciphertext, Metadata=dict(sealed.metadata))
    settings = Settings(cloud="aws", endpoint_url=aws)
    message = inbound.consume(f"s3://{name}/in/{ID}", settings=settings)
    assert message is not None
    found = message.provenance
    assert (found.sealed, found.rule, found.id, found.mail_from) == (
        "ses",
        "encrypt-to-s3",
        ID,
        "bounce+42@sender.example",
    )
    assert found.recipients == ("support@example.com",)
    assert (found.received_by, found.authserv_id) == ("inbound-smtp.eu-west-1.amazonaws.com", "amazonses.com")
    assert found.results == ("spf=pass", "dkim=pass", "dmarc=pass")
    assert message.receivedAt == "2026-10-06T09:15:02Z"
    assert message.from_ == (Address("Pat", "pat@sender.example"),)
    assert message.passed("spam", "virus", "spf", "dkim", "dmarc")
    other = {**context, "aws:ses:rule-name": "another"}
    spoilt = {**sealed.metadata, "x-amz-matdesc": json.dumps(other)}
    client("s3", aws).put_object(Bucket=name, Key="spoilt", Body=sealed.ciphertext, Metadata=spoilt)
    with pytest.raises(Undecryptable):
        inbound.consume(f"s3://{name}/spoilt", settings=settings)
    client("s3", aws).put_object(Bucket=name, Key="big", Body=b"x" * 2000)
    with pytest.raises(TooBig):
        inbound.consume(f"s3://{name}/big", settings=settings, limits=Limits(message_bytes=100))


def test_what_the_actions_do_on_aws_is_consumed_with_nothing_but_the_environment(
    aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, key = bucket(aws), kms_key(aws)
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws)

    async def story() -> None:
        async with AwsCloud(region="us-east-1") as cloud:
            for form in ("ses", "s3ec"):
                action = S3(bucket=name, prefix=form, kms_key=key, format=form)
                await action.perform(letter(content=STORED), cloud)
        is_the_message(await inbound.aconsume(f"s3://{name}/ses/{ID}", cloud="aws"))

    asyncio.run(story())
    for form in ("ses", "s3ec"):
        message = is_the_message(inbound.consume(f"s3://{name}/{form}/{ID}", cloud="aws", sealed=True))
        assert message.provenance.sealed == form


# --- a whole receiver


def test_what_the_receiver_stores_and_tells_is_consumed_with_the_settings_it_has(tmp_path: Path) -> None:
    async def story() -> None:
        async with receiver(tmp_path) as mx:
            await mx.reply(mail())
            settings = mx.app.settings
            message = await inbound.aconsume(f"s3://mail-support/in/{mx.record.message_id}", settings=settings)
            assert message is not None
            assert message.provenance.id == mx.record.message_id
            assert (message.provenance.sealed, message.provenance.rule) == ("ses", "support")
            assert message.header("X-Queue:asText") == "support"
            judged = mx.record.verdicts
            assert (message.verdicts.spf, message.verdicts.dmarc) == (judged.spf.status, judged.dmarc.status)
            assert (message.verdicts.dkim, message.verdicts.virus) == (judged.dkim.status, judged.virus.status)

    asyncio.run(story())


def test_verdicts_that_the_header_block_cannot_hold_are_the_event_s(tmp_path: Path) -> None:
    found = replace(VERDICTS, spam=SpamVerdict(status=Status.PASS))
    event = json.loads(lambda_event(event_of(letter(content=STORED, verdicts=found), {"type": "Lambda"})))
    event["Records"][0]["ses"]["receipt"]["dmarcVerdict"]["status"] = "FAIL"
    event["Records"][0]["ses"]["receipt"]["dmarcPolicy"] = "reject"
    message = inbound.consume(event, cloud=performed(tmp_path, S3_ACTION), bucket="mail-support", prefix="in")
    assert message is not None
    assert (message.verdicts.dmarc, message.verdicts.dmarc_policy) == (Status.FAIL, "reject")


# --- the call itself


def test_in_an_event_loop_the_plain_form_says_which_one_is_meant() -> None:
    async def story() -> None:
        with pytest.raises(RuntimeError, match="begins with `a`"):
            inbound.consume(STORED)

    asyncio.run(story())


def test_importing_the_package_loads_nothing_and_the_consumer_neither_boto3_nor_settings() -> None:
    script = (
        "import sys, inbound; few = len(sys.modules); assert 'asyncio' not in sys.modules, 'asyncio'\n"
        "inbound.consume(b'Subject: x\\r\\n\\r\\nHello\\r\\n')\n"
        "unwanted = ('boto3', 'botocore', 'pydantic', 'yaml', 'aiosmtpd', 'dkim', 'spf', 'dns', 're2')\n"
        "print([name for name in unwanted if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=50)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


# --- SES's own events, as they were captured

CAPTURED = Path(__file__).parents[1] / "ses"


def captured(name: str) -> Any:
    return json.loads((CAPTURED / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["lambda-event", "sns-message-s3-action", "sns-message-bounce-action"])
def test_what_ses_tells_leads_to_what_ses_stores(tmp_path: Path, name: str) -> None:
    event = captured(name)
    ident = (event["Records"][0]["ses"] if "Records" in event else event)["mail"]["messageId"]
    stored = SES_BLOCK.replace(ID.encode(), ident.encode())
    key = event.get("receipt", {}).get("action", {}).get("objectKey") or f"in/{ident}"
    name_of_bucket = event.get("receipt", {}).get("action", {}).get("bucketName") or "mail-support"
    cloud = local(tmp_path)
    asyncio.run(cloud.put(name_of_bucket, key, stored + ORIGINAL, metadata={}))
    message = inbound.consume(event, cloud=cloud, bucket=name_of_bucket, prefix=key.rpartition("/")[0])
    assert message is not None
    assert (message.id, message.subject, message.provenance.trusted) == (ident, "An order", True)
    assert message.verdicts.source == "event"


def test_what_ses_s_sns_action_brings_is_the_message() -> None:
    event = captured("sns-message-sns-action-base64")
    for what in (event, json.dumps(event), {"Type": "Notification", "Message": json.dumps(event)}):
        message = inbound.consume(what)
        assert message is not None
        assert message.raw == base64.b64decode(event["content"])
        assert message.id == event["mail"]["messageId"]


@pytest.mark.parametrize("name", ["consume", "consume_queue", "consume_bucket"])
def test_a_keyword_that_is_misspelled_is_not_passed_over(name: str, tmp_path: Path) -> None:
    cloud = performed(tmp_path, S3_ACTION)
    with pytest.raises(TypeError, match="seald"):
        getattr(inbound, name)("s3://mail-support/in", cloud=cloud, seald=True)
