"""What each action does in the world, what it says of itself, and which ways of writing it are mistakes."""

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.actions import Action, Done, Onward
from inbound.actions.add_header import AddHeader, folded
from inbound.actions.bounce import Bounce
from inbound.actions.drop import Drop
from inbound.actions.invoke import ANSWER_UNUSABLE, Invoke, disposition
from inbound.actions.kinds import ACTIONS
from inbound.actions.quarantine import Quarantine
from inbound.actions.relay import Relay
from inbound.actions.s3 import S3, object_key, open_object
from inbound.actions.sns import LONGEST, REFUSED, TOO_LARGE, Sns
from inbound.actions.sqs import TOO_LARGE as SQS_TOO_LARGE
from inbound.actions.sqs import Sqs
from inbound.actions.stop import Stop
from inbound.actions.webhook import Webhook
from inbound.clients.reasons import CONTEXT_MISMATCH, FUNCTION_ERROR, FUNCTION_MISSING, FUNCTION_TIMEOUT
from inbound.errors import Failure, PermanentFailure, TemporaryFailure
from inbound.reply import Reply
from tests.actions.letters import ACCOUNT, CONTENT, ID, TOPIC, letter, local


def perform(action: Action, data_dir: Path, functions: Mapping[str, Sequence[str]] | None = None, **more: Any) -> Done:
    async def story() -> Done:
        async with local(data_dir, functions, patience=5.0) as cloud:
            return await action.perform(letter(**more), cloud)

    return asyncio.run(story())


def published(data_dir: Path) -> list[Any]:
    """The notifications on the topic, as JSON."""
    files = sorted((data_dir / "sns/inbound-mail").glob("*.json"))
    return [json.loads(json.loads(file.read_text())["Message"]) for file in files]


# --- s3


def test_s3_stores_the_message_under_its_id_as_it_is(tmp_path: Path) -> None:
    done = perform(S3(bucket="mail-support", prefix="in"), tmp_path)
    assert (tmp_path / f"s3/mail-support/in/{ID}").read_bytes() == CONTENT
    assert Done(detail={"object": f"mail-support/in/{ID}"}) == done


def test_s3_tells_of_itself_as_ses_does_once_it_is_stored(tmp_path: Path) -> None:
    perform(S3(bucket="mail-support", prefix="in/", topic_arn=TOPIC), tmp_path)
    assert [it["receipt"]["action"] for it in published(tmp_path)] == [
        {
            "type": "S3",
            "topicArn": TOPIC,
            "bucketName": "mail-support",
            "objectKeyPrefix": "in/",
            "objectKey": f"in/{ID}",
        }
    ]
    assert "content" not in published(tmp_path)[0]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", ID),
        ("email/produccion/inbox", f"email/produccion/inbox/{ID}"),
        ("inbound/", f"inbound/{ID}"),
        ("/emails", f"/emails/{ID}"),
    ],
)
def test_prefix_and_id_are_joined_by_exactly_one_slash(prefix: str, expected: str) -> None:
    assert expected == object_key(prefix, ID)


def test_a_retry_stores_nothing_anew_and_succeeds(tmp_path: Path) -> None:
    action = S3(bucket="mail-support", kms_key="alias/support")
    perform(action, tmp_path)
    before = (tmp_path / f"s3/mail-support/{ID}").read_bytes()
    assert perform(action, tmp_path).detail["note"] == "it was there already"
    assert before == (tmp_path / f"s3/mail-support/{ID}").read_bytes()


def test_under_a_key_the_object_is_sealed_and_opens_only_as_it_was_sealed(tmp_path: Path) -> None:
    perform(S3(bucket="mail-support", kms_key="alias/support"), tmp_path)
    path = tmp_path / f"s3/mail-support/{ID}"
    metadata = json.loads(path.with_name(f"{ID}.metadata.json").read_text())
    assert b"Order 1234" not in path.read_bytes()
    assert list(json.loads(metadata["x-amz-matdesc"]).items()) == [
        ("aws:ses:message-id", ID),
        ("aws:ses:rule-name", "support"),
        ("aws:ses:source-account", ACCOUNT),
        ("kms_cmk_id", "alias/support"),
    ]
    assert asyncio.run(open_object(local(tmp_path), "mail-support", ID)) == CONTENT
    metadata["x-amz-matdesc"] = metadata["x-amz-matdesc"].replace("support", "other")
    path.with_name(f"{ID}.metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(PermanentFailure) as caught:
        asyncio.run(open_object(local(tmp_path), "mail-support", ID))
    assert caught.value.reason == CONTEXT_MISMATCH


def test_a_plain_object_opens_as_it_is(tmp_path: Path) -> None:
    perform(S3(bucket="mail-support"), tmp_path)
    assert asyncio.run(open_object(local(tmp_path), "mail-support", ID)) == CONTENT


# --- lambda


def test_a_function_gets_ses_s_event_and_its_answer_steers_the_walk(tmp_path: Path) -> None:
    file = tmp_path / "function.py"
    file.write_text(
        "import json\n"
        "def handler(event, context):\n"
        "    print('to stderr, not into the answer')\n"
        f"    open('{tmp_path}/seen', 'w').write(json.dumps(event))\n"
        "    assert context.get_remaining_time_in_millis() > 0\n"
        "    return {'disposition': 'stop_rule_set'}\n"
    )
    functions = {"ticket": (f"{file}:handler",)}
    action = Invoke(function="ticket", invocation="request_response", topic_arn=TOPIC)
    done = perform(action, tmp_path, functions)
    assert Done(onward=Onward.STOP_RULE_SET, detail={"disposition": "STOP_RULE_SET"}) == done
    expected = {
        "type": "Lambda",
        "topicArn": TOPIC,
        "functionArn": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:ticket",
        "invocationType": "RequestResponse",
    }
    seen = json.loads((tmp_path / "seen").read_text())
    assert expected == seen["Records"][0]["ses"]["receipt"]["action"]
    assert expected == published(tmp_path)[0]["receipt"]["action"]


@pytest.mark.parametrize(
    ("answer", "onward"),
    [
        ('{"disposition":"STOP_RULE"}', Onward.STOP_RULE),
        ('{"disposition":"stop_rule_set"}', Onward.STOP_RULE_SET),
        ('{"disposition":"Continue"}', Onward.CONTINUE),
        ('{"disposition":"ANYTHING"}', Onward.CONTINUE),
        ('{"disposition":["STOP_RULE"]}', Onward.CONTINUE),
        ('{"disposition":null}', Onward.CONTINUE),
        ("{}", Onward.CONTINUE),
        ("null", Onward.CONTINUE),
        ("[]", Onward.CONTINUE),
        ("", Onward.CONTINUE),
        ("no JSON", Onward.CONTINUE),
        ("\udc80", Onward.CONTINUE),
    ],
)
def test_a_disposition_is_read_as_ses_reads_it(answer: str, onward: Onward) -> None:
    assert onward == disposition(answer.encode("utf-8", "surrogateescape")).onward


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        ({"disposition": "BOUNCE"}, Reply(550, "5.7.1", "Message refused")),
        ({"disposition": "bounce", "smtp_reply_code": "450", "message": "Later"}, Reply(450, "4.7.1", "Later")),
        (
            {"disposition": "BOUNCE", "smtp_reply_code": 554, "status_code": "5.6.0", "message": "No"},
            Reply(554, "5.6.0", "No"),
        ),
    ],
)
def test_a_function_can_refuse_the_message_in_the_session(answer: Any, reply: Reply) -> None:
    done = disposition(json.dumps(answer).encode())
    assert (Onward.STOP_RULE_SET, reply) == (done.onward, done.reply)


@pytest.mark.parametrize(
    "more", [{"smtp_reply_code": 250}, {"smtp_reply_code": "x"}, {"status_code": "4.0.0"}, {"message": "a\r\nb"}]
)
def test_a_refusal_that_is_no_reply_defers_and_accepts_nothing(more: Any) -> None:
    with pytest.raises(TemporaryFailure) as caught:
        disposition(json.dumps({"disposition": "BOUNCE", **more}).encode())
    assert caught.value.reason == ANSWER_UNUSABLE


@pytest.mark.parametrize(
    ("function", "reason"), [("raises", FUNCTION_ERROR), ("hangs", FUNCTION_TIMEOUT), ("nobody", FUNCTION_MISSING)]
)
def test_a_function_that_fails_hangs_or_is_not_there_is_a_failure_and_nothing_is_published(
    tmp_path: Path, function: str, reason: str
) -> None:
    (tmp_path / "f.py").write_text("def handler(event, context):\n    raise ValueError('no')\n")
    functions = {"raises": (f"{tmp_path}/f.py:handler",), "hangs": ("sleep", "60")}

    async def story() -> None:
        async with local(tmp_path, functions, patience=0.3 if function == "hangs" else 10.0) as cloud:
            action = Invoke(function=function, invocation="request_response", topic_arn=TOPIC)
            await action.perform(letter(), cloud)

    with pytest.raises(Failure) as caught:
        asyncio.run(story())
    assert reason == caught.value.reason
    assert published(tmp_path) == []


def test_only_a_function_that_is_waited_for_has_patience() -> None:
    assert [Invoke(function="f", invocation=it).patience for it in ("event", "request_response")] == [0.0, 30.0]


def test_the_answer_of_a_function_that_is_not_waited_for_means_nothing(tmp_path: Path) -> None:
    functions = {"f": ("echo", '{"disposition":"STOP_RULE_SET"}')}
    assert Done() == perform(Invoke(function="f"), tmp_path, functions)


# --- sns


@pytest.mark.parametrize(("encoding", "word"), [("utf-8", "UTF8"), ("base64", "BASE64")])
def test_sns_publishes_the_message_itself(tmp_path: Path, encoding: Any, word: str) -> None:
    assert Done() == perform(Sns(topic_arn=TOPIC, encoding=encoding), tmp_path)
    told = published(tmp_path)[0]
    assert {"type": "SNS", "topicArn": TOPIC, "encoding": word} == told["receipt"]["action"]
    content = told["content"]
    assert (content.encode() if word == "UTF8" else base64.b64decode(content, validate=True)) == CONTENT


def content_of(size: int, unit: bytes = b"x") -> bytes:
    head = b"Subject: big\r\n\r\n"
    return head + (unit * size)[: size - len(head)]


@pytest.mark.parametrize(
    ("content", "fits"),
    [
        (content_of(LONGEST), True),
        (content_of(LONGEST + 1), False),
        (content_of(LONGEST, b"\x01"), False),  # six octets each in JSON: more than SNS takes
    ],
)
def test_a_message_over_150_kb_is_refused_in_ses_s_words_instead_of_lost(
    tmp_path: Path, content: bytes, fits: bool
) -> None:
    done = perform(Sns(topic_arn=TOPIC), tmp_path, content=content)
    assert (1 if fits else 0) == len(published(tmp_path))
    assert (None if fits else REFUSED) == done.reply
    assert (Onward.CONTINUE if fits else Onward.STOP_RULE_SET) == done.onward


def test_a_message_over_150_kb_is_passed_over_where_the_rule_says_so(tmp_path: Path) -> None:
    with pytest.raises(PermanentFailure) as caught:
        perform(Sns(topic_arn=TOPIC, on_failure="continue"), tmp_path, content=content_of(LONGEST + 1))
    assert caught.value.reason == TOO_LARGE


@pytest.mark.parametrize("kms_key", [None, "alias/big"])
def test_a_message_over_150_kb_is_kept_and_pointed_to_where_there_is_a_bucket(
    tmp_path: Path, kms_key: str | None
) -> None:
    big = content_of(LONGEST + 1)
    action = Sns(topic_arn=TOPIC, bucket="mail-big", prefix="sns", kms_key=kms_key)
    assert Done() == perform(action, tmp_path, content=big)
    told = published(tmp_path)[0]
    assert "content" not in told
    assert told["receipt"]["action"] == {
        "type": "S3",
        "topicArn": TOPIC,
        "bucketName": "mail-big",
        "objectKeyPrefix": "sns",
        "objectKey": f"sns/{ID}",
    }
    assert big == asyncio.run(open_object(local(tmp_path), "mail-big", f"sns/{ID}"))
    perform(action, tmp_path)
    assert published(tmp_path)[1]["content"] == CONTENT.decode()


def test_only_an_action_that_can_refuse_says_so_at_rcpt() -> None:
    assert [Sns(topic_arn=TOPIC, bucket=it).may_refuse for it in (None, "mail-big")] == [TOO_LARGE, ""]
    assert [Sqs(queue_url=QUEUE, content=it).may_refuse for it in ("none", "base64")] == ["", SQS_TOO_LARGE]


# --- sqs

QUEUE = f"https://sqs.us-east-1.amazonaws.com/{ACCOUNT}/tickets"


def queued(data_dir: Path, name: str = "tickets") -> list[Any]:
    """The messages of a queue, as JSON."""
    return [json.loads(json.loads(file.read_text())["Body"]) for file in sorted((data_dir / f"sqs/{name}").glob("*"))]


@pytest.mark.parametrize(
    ("content", "expected"),
    [("none", None), ("utf-8", CONTENT.decode()), ("base64", base64.b64encode(CONTENT).decode())],
)
def test_sqs_sends_the_bare_notification(tmp_path: Path, content: Any, expected: str | None) -> None:
    assert Done() == perform(Sqs(queue_url=QUEUE, content=content), tmp_path)
    told = queued(tmp_path)[0]
    assert (told["notificationType"], told["receipt"]["action"]) == ("Received", {"type": "SQS", "queueUrl": QUEUE})
    assert expected == told.get("content")


def test_what_does_not_fit_in_a_queue_is_refused_or_passed_over_and_never_cut(tmp_path: Path) -> None:
    big = content_of(300 * 1024)
    done = perform(Sqs(queue_url=QUEUE, content="utf-8"), tmp_path, content=big)
    assert (done.reply, done.onward) == (REFUSED, Onward.STOP_RULE_SET)
    with pytest.raises(PermanentFailure) as caught:
        perform(Sqs(queue_url=QUEUE, content="utf-8", on_failure="continue"), tmp_path, content=big)
    assert caught.value.reason == SQS_TOO_LARGE
    assert not (tmp_path / "sqs").exists()
    assert Done() == perform(Sqs(queue_url=QUEUE), tmp_path, content=big)


def test_a_fifo_queue_takes_every_try_of_a_step_once(tmp_path: Path) -> None:
    action = Sqs(queue_url=QUEUE + ".fifo")
    perform(action, tmp_path)
    perform(action, tmp_path)
    perform(action, tmp_path, rule="another")
    assert len(queued(tmp_path, "tickets.fifo")) == 2


# --- bounce, stop, drop, add_header


def test_bounce_answers_with_its_reply_ends_the_walk_and_tells_of_itself(tmp_path: Path) -> None:
    action = Bounce(
        smtp_reply_code=550,
        status_code="5.1.1",
        message="Mailbox does not exist",
        sender="mailer-daemon@example.com",
        topic_arn=TOPIC,
    )
    done = perform(action, tmp_path)
    reply = Reply(550, "5.1.1", "Mailbox does not exist")
    assert (reply, reply, True, Onward.STOP_RULE_SET) == (action.refusal, done.reply, action.ends, done.onward)
    assert published(tmp_path)[0]["receipt"]["action"] == {
        "type": "Bounce",
        "topicArn": TOPIC,
        "smtpReplyCode": "550",
        "statusCode": "5.1.1",
        "message": "Mailbox does not exist",
        "sender": "mailer-daemon@example.com",
    }


def test_bounce_goes_on_as_ses_does_when_it_is_told_to(tmp_path: Path) -> None:
    action = Bounce(message="No", then="continue")
    assert (False, Onward.CONTINUE, Reply(550, "5.0.0", "No")) == (
        action.ends,
        perform(action, tmp_path).onward,
        action.refusal,
    )


def test_stop_ends_the_walk_and_tells_of_itself(tmp_path: Path) -> None:
    assert Done(onward=Onward.STOP_RULE_SET) == perform(Stop(topic_arn=TOPIC), tmp_path)
    assert published(tmp_path)[0]["receipt"]["action"] == {"type": "Stop", "topicArn": TOPIC}


def test_drop_takes_the_mail_and_does_nothing(tmp_path: Path) -> None:
    assert Done(onward=Onward.STOP_RULE_SET) == perform(Drop(), tmp_path)
    assert (Drop.takes, Drop().ends, list(tmp_path.iterdir())) == (True, True, [])


def test_add_header_hands_its_field_to_the_actions_behind_it(tmp_path: Path) -> None:
    assert Done(added=b"X-Queue: support\r\n") == perform(AddHeader(name="X-Queue", value="support"), tmp_path)


@given(st.text(st.sampled_from("ab  "), min_size=1, max_size=2047).filter(lambda text: text == text.strip()))
def test_a_folded_field_unfolds_to_its_value_and_no_line_is_too_long(value: str) -> None:
    if max(map(len, value.split(" "))) > 900:
        return
    field = folded("X-" + "a" * 48, value)
    lines = field.decode().removesuffix("\r\n").split("\r\n")
    assert f"X-{'a' * 48}: {value}" == "".join(lines)
    assert all(line.startswith(" ") and line.strip() for line in lines[1:])
    assert max(map(len, lines)) <= 998


@pytest.mark.parametrize(
    ("action", "told"),
    [
        (Sqs(queue_url=QUEUE, topic_arn=TOPIC), {"type": "SQS", "topicArn": TOPIC, "queueUrl": QUEUE}),
        (Drop(topic_arn=TOPIC), {"type": "Drop", "topicArn": TOPIC}),
        (
            AddHeader(name="X-Queue", value="support", topic_arn=TOPIC),
            {"type": "AddHeader", "topicArn": TOPIC, "headerName": "X-Queue", "headerValue": "support"},
        ),
    ],
    ids=lambda it: it.kind if isinstance(it, Sqs | Drop | AddHeader) else "",
)
def test_an_action_that_ses_has_not_tells_of_itself_in_the_same_shape(
    tmp_path: Path, action: Action, told: dict[str, str]
) -> None:
    perform(action, tmp_path)
    assert [list(it["receipt"]["action"].items()) for it in published(tmp_path)] == [list(told.items())]


def test_every_action_has_a_topic() -> None:
    keys = {kind: {field.name for field in fields(action)} for kind, action in ACTIONS.items()}  # type: ignore[arg-type]
    assert [kind for kind, names in keys.items() if "topic_arn" not in names] == []


def test_what_does_not_fit_in_a_queue_is_not_announced(tmp_path: Path) -> None:
    perform(Sqs(queue_url=QUEUE, content="utf-8", topic_arn=TOPIC), tmp_path, content=content_of(300 * 1024))
    assert published(tmp_path) == []


def test_without_a_topic_nothing_is_published(tmp_path: Path) -> None:
    actions = S3(bucket="mail-support"), Bounce(message="No"), Stop(), Drop(), AddHeader(name="X", value="y")
    for action in (*actions, Sqs(queue_url=QUEUE)):
        perform(action, tmp_path)
    assert not (tmp_path / "sns").exists()


# --- what is written wrongly


@pytest.mark.parametrize(
    ("kind", "keys", "where", "what"),
    [
        ("s3", {}, "bucket", "Field required"),
        ("s3", {"bucket": "Mail"}, "bucket", "pattern"),
        ("s3", {"bucket": "../x"}, "bucket", "pattern"),
        ("s3", {"bucket": "mail", "bukcet": "x"}, "bukcet", "Unexpected"),
        ("s3", {"bucket": "mail", "kms_key": "key with blanks"}, "kms_key", "pattern"),
        ("s3", {"bucket": "mail", "topic_arn": "topic"}, "topic_arn", "pattern"),
        ("s3", {"bucket": "mail", "role_arn": "role"}, "role_arn", "pattern"),
        ("s3", {"bucket": "mail", "on_failure": "ignore"}, "on_failure", "'retry', 'continue' or 'defer'"),
        ("s3", {"bucket": "mail", "prefix": "x" * 901}, "prefix", "at most 900"),
        ("lambda", {"function": "a b"}, "function", "pattern"),
        ("lambda", {"function": "f", "invocation": "Event"}, "invocation", "'event' or 'request_response'"),
        ("sns", {"topic_arn": TOPIC, "encoding": "utf-16"}, "encoding", "'utf-8' or 'base64'"),
        ("sns", {"topic_arn": f"{TOPIC}.fifo"}, "topic_arn", "pattern"),
        ("sns", {"topic_arn": TOPIC, "prefix": "big"}, "", "which is missing"),
        ("sqs", {"queue_url": "tickets"}, "queue_url", "pattern"),
        ("sqs", {"queue_url": QUEUE, "content": "raw"}, "content", "'none', 'utf-8' or 'base64'"),
        ("webhook", {"url": "http://a.example/", "secret_env": "X"}, "", "needs allow_private"),
        ("webhook", {"url": "a.example", "secret_env": "X"}, "", "a URL is https://"),
        ("webhook", {"url": "https://a.example/"}, "secret_env", "Field required"),
        ("webhook", {"url": "https://a.example/", "secret_env": "X", "kms_key": "alias/x"}, "", "which is missing"),
        ("bounce", {"message": "a\nb"}, "", "printable ASCII"),
        ("bounce", {"message": "ü"}, "", "printable ASCII"),
        ("bounce", {"message": "No", "smtp_reply_code": 250, "status_code": "2.0.0"}, "", "accepts the message"),
        ("bounce", {"message": "No", "smtp_reply_code": 550, "status_code": "4.1.1"}, "", "different classes"),
        ("bounce", {"message": "No", "smtp_reply_code": 350}, "", "not a final reply code"),
        ("bounce", {"message": "x" * 600}, "", "longest allowed"),
        ("add_header", {"name": "X Queue", "value": "x"}, "name", "pattern"),
        ("add_header", {"name": "X" * 51, "value": "x"}, "name", "pattern"),
        ("add_header", {"name": "X-Queue", "value": "a\r\nBcc: b"}, "value", "printable ASCII"),
        ("add_header", {"name": "X-Queue", "value": "a\n"}, "value", "printable ASCII"),
        ("add_header", {"name": "X-Queue", "value": "ü"}, "value", "printable ASCII"),
        ("add_header", {"name": "X-Queue", "value": " a"}, "value", "neither begins nor ends"),
        ("add_header", {"name": "X-Queue", "value": "x" * 2048}, "value", "at most 2047"),
        ("add_header", {"name": "X-Queue", "value": "x" * 1000}, "value", "998"),
        ("add_header", {"name": "X-Queue", "value": ""}, "value", "at least 1"),
        ("stop", {"scope": "RuleSet"}, "scope", "Unexpected"),
        ("drop", {"bucket": "x"}, "bucket", "Unexpected"),
        ("quarantine", {}, "bucket", "Field required"),
        ("quarantine", {"bucket": "held", "on_failure": "continue"}, "on_failure", "'retry' or 'defer'"),
    ],
)
def test_a_mistake_is_an_error_at_its_key(kind: str, keys: dict[str, Any], where: str, what: str) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        ACTIONS[kind](**keys)
    problems = caught.value.errors()
    assert ([(where,) if where else ()], True) == (
        [problem["loc"] for problem in problems],
        what in problems[0]["msg"],
    ), problems


def test_every_action_fulfils_the_protocol_and_is_known_by_its_key() -> None:
    written: list[Action] = [
        S3(bucket="mail"),
        Invoke(function="f"),
        Sns(topic_arn=TOPIC),
        Sqs(queue_url=QUEUE),
        Webhook(url="https://a.example/", secret_env="HOOK"),
        Relay(),
        Bounce(message="No"),
        AddHeader(name="X", value="y"),
        Stop(),
        Drop(),
        Quarantine(bucket="mail"),
    ]
    assert [it.kind for it in written] == [
        "s3",
        "lambda",
        "sns",
        "sqs",
        "webhook",
        "relay",
        "bounce",
        "add_header",
        "stop",
        "drop",
        "quarantine",
    ]
    assert list(ACTIONS) == [it.kind for it in written]
    for action in written:
        assert (action.on_failure in {"retry", "defer"}, action == replace(action)) == (True, True)  # type: ignore[type-var]
