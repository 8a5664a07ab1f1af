"""The least that a rule set needs of AWS, as IAM policies: exact actions on exact resources, under exact conditions.

1. Our own identity (`receiver`) may store under the prefixes named, make data keys bound to our account and to the rules
   that use them, publish, send and call. Nothing is read. A key that S3 itself encrypts under is used through S3 only.
2. Whoever works with quarantine (`operator`) may list, open and delete what is held, and claim a release. Releasing acts as
   the receiver does, so that takes both.
3. What an action does as another role (`role_arn`) is that role's; ours may assume it, and its trust says so.
4. KMS asks the key's own policy as well, and S3 the bucket's when it belongs to another account: the statements to put
   there. In a key's policy `*` stands for the key itself.
5. A name in a resource is that name: characters that IAM reads as wildcards are written as its variables for them.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from inbound.actions.keep import object_key
from inbound.seal import COMMITTING
from inbound.uses import Use

Json = dict[str, Any]

_CONTEXT = "kms:EncryptionContext:"
# What is uploaded in parts is given up when it fails (Amazon S3 User Guide, "Multipart upload API and permissions").
_STORING = ("s3:PutObject", "s3:AbortMultipartUpload")
_SQS_HOST = re.compile(r"sqs\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Where we are: the account and region of the settings, and the ARNs of the identities that policies name.

    `senders` are the addresses that SES sends notifications of bounces from, none where it sends none.
    """

    account: str
    region: str
    receiver: str
    operator: str
    senders: tuple[str, ...] = ()

    @property
    def partition(self) -> str:
        """`aws`, or that of China or of GovCloud."""
        return {"cn": "aws-cn", "us-gov": "aws-us-gov"}.get(re.split(r"-(?=[a-z]+-\d)", self.region)[0], "aws")

    @property
    def suffix(self) -> str:
        """Of the names of services."""
        return "amazonaws.com.cn" if self.partition == "aws-cn" else "amazonaws.com"

    def arn(self, service: str, resource: str) -> str:
        """An ARN in this account and region."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"


def policies(used: Sequence[Use], home: Home) -> Json:
    """All of them by where they belong; what would be empty is left out."""
    roles = sorted({use.role for use in used if use.role})
    told: Json = {
        "receiver": _policy(_acting([use for use in used if not use.role], home), _telling(home), _assuming(roles)),
        "operator": _policy(_operating([use for use in used if use.held], home)),
        "roles": {role: _policy(_acting([use for use in used if use.role == role], home)) for role in roles},
        "trust": {role: _policy([_trusting(home.receiver)]) for role in roles},
        "buckets": {name: _policy(_bucket(some, home)) for name, some in _by_name(used, "bucket").items()},
        "keys": {name: _policy(_key(some, home)) for name, some in _by_name(used, "key").items()},
    }
    return {name: document for name, document in told.items() if document}


def _policy(*parts: Iterable[Json]) -> Json:
    statements = [statement for part in parts for statement in part]
    return {"Version": "2012-10-17", "Statement": statements} if statements else {}


def _by_name(used: Iterable[Use], what: str) -> dict[str, list[Use]]:
    found: dict[str, list[Use]] = {}
    for use in used:
        if use.what == what:
            found.setdefault(use.name, []).append(use)
    return found


def _allow(sid: str, action: str | list[str], resources: Iterable[str], **more: Any) -> Json:
    listed = sorted(set(resources))
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Action": action,
        "Resource": listed[0] if len(listed) == 1 else listed,
        **more,
    }


def _acting(used: Sequence[Use], home: Home) -> Iterator[Json]:
    """What actions do under one identity."""
    stores = [use for use in used if use.what == "bucket"]
    if stores:
        yield _allow("StoreMail", [*_STORING], (_objects(use, home) for use in stores))
    tagged = [_objects(use, home) for use in stores if use.terms.tags]
    if tagged:
        yield _allow("TagMail", "s3:PutObjectTagging", tagged)
    for at, key in enumerate(sorted({use.terms.sse_kms_key or "" for use in stores} - {""}), start=1):
        # Amazon S3 User Guide, "Protecting data using server-side encryption with AWS KMS": Decrypt is for multipart uploads.
        through: Json = {"StringEquals": {"kms:ViaService": f"s3.{home.region}.{home.suffix}"}}
        _, aliased, name = key.rpartition("alias/")
        if aliased:
            through["ForAnyValue:StringEquals"] = {"kms:ResourceAliases": f"alias/{name}"}
        rights = ["kms:Decrypt", "kms:GenerateDataKey"]
        yield _allow(f"EncryptAtRest{at}", rights, [_key_arn(key, home)], Condition=through)
    for at, (key, form, some) in enumerate(_seals(used), start=1):
        condition = _condition(some, form, home)
        yield _allow(f"SealMail{at}", "kms:GenerateDataKey", [_key_arn(key, home)], Condition=condition)
    for sid, action, what, arn in (
        ("Announce", "sns:Publish", "topic", lambda use: use.name),
        ("Enqueue", "sqs:SendMessage", "queue", lambda use: _queue_arn(use.name, home)),
        ("Call", "lambda:InvokeFunction", "function", lambda use: _function_arn(use.name, home)),
    ):
        resources = [arn(use) for use in used if use.what == what]
        if resources:
            yield _allow(sid, action, resources)


def _operating(used: Sequence[Use], home: Home) -> Iterator[Json]:
    """What `inbound quarantine` does beside the actions."""
    buckets = [use for use in used if use.what == "bucket"]
    if buckets:
        claims = (f"{_objects(use, home)}.release.json" for use in buckets)
        yield _allow("OpenAndRemove", ["s3:DeleteObject", "s3:GetObject"], (_objects(use, home) for use in buckets))
        yield _allow("ClaimARelease", "s3:PutObject", claims)
    for at, (name, some) in enumerate(_by_name(buckets, "bucket").items(), start=1):
        prefixes = sorted({object_key(use.prefix, "") for use in some})
        yield _allow(
            f"ListHeld{at}",
            "s3:ListBucket",
            [_bucket_arn(name, home)],
            Condition={"StringEquals": {"s3:prefix": prefixes}},
        )
    for at, (key, form, some) in enumerate(_seals(used), start=1):
        condition = _condition(some, form, home, opens=True)
        yield _allow(f"OpenHeld{at}", "kms:Decrypt", [_key_arn(key, home)], Condition=condition)


def _telling(home: Home) -> Iterator[Json]:
    """SES asks for the identity that a sender belongs to, which may be the address or a domain above it."""
    if home.senders:
        senders = {"StringEquals": {"ses:FromAddress": sorted(home.senders)}}
        yield _allow("TellSenders", "ses:SendRawEmail", [home.arn("ses", "identity/*")], Condition=senders)


def _assuming(roles: Sequence[str]) -> Iterator[Json]:
    if roles:
        yield _allow("ActAs", "sts:AssumeRole", roles)


def _trusting(receiver: str) -> Json:
    return {"Sid": "Receiver", "Effect": "Allow", "Principal": {"AWS": receiver}, "Action": "sts:AssumeRole"}


def _bucket(used: Sequence[Use], home: Home) -> Iterator[Json]:
    """For the policy of a bucket: who stores there."""
    for at, (principal, some) in enumerate(_by_principal(used, home).items(), start=1):
        resources = [_objects(use, home) for use in some]
        tags = ["s3:PutObjectTagging"] if any(use.terms.tags for use in some) else []
        yield _allow(
            f"StoreMail{at}",
            [*_STORING, *tags],
            resources,
            Principal={"AWS": principal},
        )


def _key(used: Sequence[Use], home: Home) -> Iterator[Json]:
    """For the policy of a key: who seals under it, and who opens what is held."""
    sealed = [(who, form, group) for who, some in _by_principal(used, home).items() for _, form, group in _seals(some)]
    for at, (who, form, group) in enumerate(sealed, start=1):
        yield _under(f"SealMail{at}", "kms:GenerateDataKey", who, _condition(group, form, home))
    for at, (_, form, group) in enumerate(_seals(use for use in used if use.held), start=1):
        yield _under(f"OpenHeld{at}", "kms:Decrypt", home.operator, _condition(group, form, home, opens=True))


def _under(sid: str, action: str, principal: str, condition: Json) -> Json:
    return _allow(sid, action, ["*"], Principal={"AWS": principal}, Condition=condition)


def _by_principal(used: Iterable[Use], home: Home) -> dict[str, list[Use]]:
    found: dict[str, list[Use]] = {}
    for use in used:
        found.setdefault(use.role or home.receiver, []).append(use)
    return found


def _seals(used: Iterable[Use]) -> Iterator[tuple[str, str, list[Use]]]:
    """Each key with the form that is sealed in, and what is sealed so: data keys for one message apart from shared ones."""
    found: dict[tuple[str, str, bool], list[Use]] = {}
    for use in used:
        if use.what == "key":
            found.setdefault((use.name, use.form, use.shared), []).append(use)
    for (key, form, _), some in found.items():
        yield key, form, some


def _condition(used: Sequence[Use], form: str, home: Home, *, opens: bool = False) -> Json:
    """Under one key: the encryption context that data keys are bound to (`actions.keep.encryption_context`), and the alias.

    Who opens names no key, so it is the key's aliases that count; and what a rule held that is gone is opened too.
    """
    key, shared = used[0].name, used[0].shared
    told = {
        "aws:ses:source-account": home.account,
        "aws:ses:rule-name": sorted({use.rule.name for use in used}),
        **({"kms_cmk_id": key} if form == "ses" else {"aws:x-amz-cek-alg": COMMITTING}),
    }
    named = sorted([*told, *([] if shared else ["aws:ses:message-id"])])
    if opens:
        del told["aws:ses:rule-name"]
    equal: Json = {f"{_CONTEXT}{name}": value for name, value in told.items()}
    condition: Json = {
        "StringEquals": equal,
        "ForAllValues:StringEquals": {"kms:EncryptionContextKeys": named},
        **({} if shared else {"Null": {f"{_CONTEXT}aws:ses:message-id": "false"}}),
    }
    _, aliased, name = key.rpartition("alias/")
    if aliased and opens:
        condition["ForAnyValue:StringEquals"] = {"kms:ResourceAliases": f"alias/{name}"}
    elif aliased:
        equal["kms:RequestAlias"] = f"alias/{name}"
    return condition


def _key_arn(key: str, home: Home) -> str:
    """A key's ARN; an alias is no resource of these actions, so all keys of its account, and the condition says which."""
    arn = re.fullmatch(r"(arn:[^:]+:kms:[^:]+:[^:]+:)(.+)", key)
    place, resource = arn.groups() if arn else (home.arn("kms", ""), key)
    if resource.startswith("alias/"):
        return f"{place}key/*"
    return f"{place}{resource if resource.startswith('key/') else f'key/{resource}'}"


def _bucket_arn(name: str, home: Home) -> str:
    return name if name.startswith("arn:") else f"arn:{home.partition}:s3:::{name}"


def _objects(use: Use, home: Home) -> str:
    """The objects below a prefix; those of an access point are named below it."""
    arn = _bucket_arn(use.name, home) + ("/object" if use.name.startswith("arn:") else "")
    return f"{arn}/{_literal(object_key(use.prefix, ''))}*"


def _literal(text: str) -> str:
    return re.sub(r"[*?$]", lambda match: "${" + match.group() + "}", text)


def _queue_arn(url: str, home: Home) -> str:
    """Of a queue at AWS the region and account are in its URL; elsewhere they are ours."""
    parts = urlsplit(url)
    host = _SQS_HOST.fullmatch(parts.hostname or "")
    *account, name = parts.path.strip("/").split("/")
    region = host.group(1) if host else home.region
    return f"arn:{home.partition}:sqs:{region}:{account[0] if account else home.account}:{name}"


def _function_arn(function: str, home: Home) -> str:
    return function if function.startswith("arn:") else home.arn("lambda", f"function:{function}")
