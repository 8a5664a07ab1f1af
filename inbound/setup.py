"""Try everything that a rule set uses, really where that does no harm, and say how to mend what is wrong.

1. Into every bucket and prefix goes the object that SES writes when a rule is made, `AMAZON_SES_SETUP_NOTIFICATION`, with
   SES's header fields; consumers know it by that name and pass it over. One that is there already proves as much.
2. A data key is made under every key, in the context of a rule, and thrown away.
3. Topics and queues get the notification about it, as SES publishes one. Nobody can prove that without sending; who does not
   want it says so, and these are not tried.
4. A function is invoked as `DryRun`: Lambda says whether it could be, and runs nothing. A webhook's service is connected to,
   its certificate and the secret are looked at, and nothing is said to it. A next hop is greeted, with TLS and password.
"""

import base64
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from ipaddress import ip_address
from typing import Protocol

from inbound.actions import Cloud, Letter
from inbound.actions.keep import encryption_context, object_key
from inbound.actions.notice import event
from inbound.actions.relay import Relay
from inbound.actions.webhook import SECRET_MISSING, secret_of
from inbound.clients import reasons as why
from inbound.clients.relay import NOT_SET
from inbound.clients.web import NOT_ALLOWED, NOT_TRUSTED, reach
from inbound.consumer.events import SETUP
from inbound.errors import Failure
from inbound.event import SUBJECT, notification
from inbound.mail import Client, Headers, Mail
from inbound.uses import Use
from inbound.verdicts import ALL_PASSED

WHO, WHOM = "no-reply-aws@amazon.com", "recipient@example.com"
SECONDS = 10.0  # for one connection


class Tried(Cloud, Protocol):
    """A cloud that can be asked about a function."""

    async def try_function(self, function: str) -> None:
        """Could it be called? Nothing runs. Raises Failure."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What came of one try. `ok` is None when it was not tried; `text` says what was done or is wrong, `mend` what helps."""

    what: str
    name: str
    rules: tuple[str, ...] = ()
    ok: bool | None = True
    text: str = ""
    mend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How things are tried: in which account, and whether topics and queues are told."""

    cloud: Tried
    account: str
    region: str
    send: bool = True

    async def __call__(self, used: Sequence[Use]) -> AsyncIterator[Finding]:
        """Try each thing once for each identity that uses it, in the order of the rules."""
        groups: dict[tuple[str, ...], list[Use]] = {}
        for use in used:
            groups.setdefault((use.what, use.name, _apart(use), use.role), []).append(use)
        for some in groups.values():
            rules = tuple(dict.fromkeys(use.rule.name for use in some))
            yield replace(await self._finding(some[0]), rules=rules)

    async def _finding(self, use: Use) -> Finding:
        told = Finding(what=use.what, name=_name(use))
        if not self.send and use.what in ("topic", "queue"):
            return replace(told, ok=None, text="not tried: it would be told something")
        try:
            return replace(told, text=await self._try(use))
        except Failure as failure:
            return replace(told, ok=False, text=str(failure), mend=_mend(use, failure))

    async def _try(self, use: Use) -> str:
        """What was done. Raises Failure."""
        cloud, role, letter = self.cloud, use.role or None, self._letter(use)
        match use.what:
            case "bucket":
                key = object_key(use.prefix, SETUP)
                new = await cloud.put(use.name, key, letter.content, metadata={}, terms=use.terms, role_arn=role)
                return f"{SETUP} {'was written' if new else 'is there'}"
            case "key":
                context = encryption_context(letter, use.name, use.form, shared=use.shared)
                await cloud.generate_data_key(use.name, context, role_arn=role)
                return "makes data keys"
            case "topic":
                await cloud.publish(use.name, SUBJECT, _notification(use, letter), role_arn=role)
                return "was told"
            case "queue":
                once = f"{SETUP}-{time.time_ns()}"
                await cloud.send(use.name, _notification(use, letter), once=once, role_arn=role)
                return "was told"
            case "function":
                await cloud.try_function(use.name)
                return "can be called"
            case "webhook":
                secret_env, allow_private = _webhook(use)
                secret_of(os.environ.get(secret_env, ""))
                await reach(use.name, allow_private=allow_private, seconds=SECONDS)
                return "can be reached, and its secret is set; nothing was posted"
            case "next hop":
                hop = cloud.relays.to(use.action.hop if isinstance(use.action, Relay) else None)
                await hop.greet()
                return f"{hop.hop.name if hop.hop else ''} lets us in; nothing was sent"

    def _letter(self, use: Use) -> Letter:
        raw = setup_mail(_WHERE.get(use.what, use.what))
        mail = Mail(
            raw=raw,
            headers=Headers.of(raw),
            client=Client(ip=ip_address("127.0.0.1")),
            mail_from=WHO,
            rcpt_to=(WHOM,),
            received_at=time.time(),
            message_id=SETUP,
        )
        return Letter(
            mail=mail,
            verdicts=ALL_PASSED,
            recipients=mail.rcpt_to,
            rule=use.rule.name,
            content=raw,
            account=self.account,
            region=self.region,
            ours=False,
        )


_WHERE = {"bucket": "S3 bucket", "topic": "SNS topic", "queue": "SQS queue"}


def setup_mail(where: str) -> bytes:
    """The message, in SES's form: these header fields, CRLF, and a bare LF at the very end. `where` is what it is about."""
    lines = (
        f"Date: {format_datetime(datetime.now(UTC))}",
        f"To: {WHOM}",
        f"From: Amazon Web Services <{WHO}>",
        "Subject: Amazon SES Setup Notification",
        "",
        "Hello,",
        "",
        f"This was written because somebody has set up a receipt rule that hands mail to this {where}. It is no mail from",
        "anybody: programs that read what arrives here may pass it over.",
        "",
        "It says that whoever has set it up may do so. The rule itself takes effect when all of the rule set is in force.",
    )
    return "\r\n".join(lines).encode("ascii") + b"\n"


def _apart(use: Use) -> str:
    """What uses of one thing may differ in, so that one try does not stand for the other."""
    match use.what:
        case "bucket":
            return object_key(use.prefix, "")
        case "key":
            return f"{use.form} {use.shared}"
        case "webhook":
            return "{} {}".format(*_webhook(use))
        case _:
            return ""


def _webhook(use: Use) -> tuple[str, bool]:
    """Where its secret is, and whether it may be in a private network."""
    return getattr(use.action, "secret_env", ""), getattr(use.action, "allow_private", False)


def _name(use: Use) -> str:
    name = f"s3://{use.name}/{use.prefix}" if use.what == "bucket" else use.name.partition("?")[0]
    return name + (f" as {use.role}" if use.role else "")


def _notification(use: Use, letter: Letter) -> str:
    """What SES publishes: the message itself where an action sends messages, else the notification alone."""
    content: str | None = None
    kind = {"s3": "S3", "lambda": "Lambda", "sqs": "SQS", "add_header": "AddHeader"}.get(use.action.kind, "")
    action = {"type": kind or use.action.kind.capitalize(), "topicArn": use.name}
    if use.what == "queue":
        action = {"type": "SQS", "queueUrl": use.name}
    elif use.action.kind == "sns":
        encoding = getattr(use.action, "encoding", "utf-8")
        action = {"type": "SNS", "topicArn": use.name, "encoding": {"utf-8": "UTF8", "base64": "BASE64"}[encoding]}
        octets = letter.content if encoding == "utf-8" else base64.b64encode(letter.content)
        content = octets.decode("ascii")
    return notification(event(letter, action), content=content)


def _mend(use: Use, failure: Failure) -> str:
    """What helps: by the reason, and where that says nothing, what to look at."""
    if failure.reason == why.ACCESS_DENIED:
        also = ", in the key's own policy too" if use.what == "key" else ""
        who = use.role or "our own identity"
        return f"allow {who} {_RIGHTS.get(use.what, 'it')}{also}: inbound setup --policies prints the statement"
    if failure.reason == SECRET_MISSING:
        return f"set the environment variable {_webhook(use)[0]}"
    return _MENDS.get(failure.reason, f"correct it, or name another {use.what} in the rule")


_RIGHTS = {
    "bucket": "s3:PutObject",
    "key": "kms:GenerateDataKey",
    "topic": "sns:Publish",
    "queue": "sqs:SendMessage",
    "function": "lambda:InvokeFunction",
}
_LATER = "look at the network and at endpoint_url, and try again"
_MENDS = {
    why.BUCKET_MISSING: "create the bucket, or name another in the rule",
    why.KEY_MISSING: "create the key or the alias in that region, or name another in the rule",
    why.KEY_UNUSABLE: "the key must be enabled, symmetric, and for encryption",
    why.TOPIC_MISSING: "create the topic, or name another in the rule",
    why.QUEUE_MISSING: "create the queue, or name another in the rule",
    why.FUNCTION_MISSING: "create the function (with cloud: local, name it in `functions` of the settings)",
    why.COMMAND_MISSING: "install it, or correct `functions` in the settings",
    why.CREDENTIALS: "give this process valid credentials: environment, profile or instance role",
    why.CONFIGURATION: "correct what boto3 is configured with: profile, region, endpoint",
    why.DISK: "make data_dir writable for the user that receives",
    why.UNREACHABLE: _LATER,
    why.TIMED_OUT: _LATER,
    why.SERVICE_DOWN: _LATER,
    why.THROTTLED: "try again",
    NOT_ALLOWED: "say allow_private: yes, if that is meant",
    NOT_SET: "name one in the settings (relay: {host: …}), or in the rule",
    NOT_TRUSTED: "mend its certificate; SSL_CERT_FILE names an authority of your own",
}
