"""A letter to act on, and a cloud in a directory to act in."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from inbound.actions import Letter
from inbound.clients.invoke import Runner
from inbound.clients.local import LocalCloud
from inbound.mail import Client, Headers, Mail
from inbound.verdicts import ALL_PASSED, IprevVerdict, SpfVerdict, Status

ID = "12csr1bfnadh642g2d8jhjc7onii4boa0pbriho1"
ACCOUNT, REGION = "123456789012", "us-east-1"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:inbound-mail"
CONTENT = (
    b"Return-Path: <pat@sender.example>\r\nX-SES-Spam-Verdict: PASS\r\n"
    b"From: Pat <pat@sender.example>\r\nTo: support@example.com\r\nSubject: Order 1234\r\n\r\nHello,\r\nhow is it?\r\n"
)
VERDICTS = replace(
    ALL_PASSED,
    spf=SpfVerdict(status=Status.PASS, result="pass", domain="sender.example"),
    iprev=IprevVerdict(result="pass", name="mail.sender.example"),
)


def letter(raw: bytes = CONTENT, **more: Any) -> Letter:
    mail = Mail(
        raw=raw,
        headers=Headers.of(raw),
        client=Client(ip=ip_address("192.0.2.10"), helo="mail.sender.example"),
        mail_from="pat@sender.example",
        rcpt_to=("support@example.com",),
        received_at=1791278102.118,
        message_id=ID,
    )
    made = Letter(
        mail=mail,
        verdicts=VERDICTS,
        recipients=("support@example.com",),
        rule="support",
        content=raw,
        account=ACCOUNT,
        region=REGION,
    )
    return replace(made, **more)


def local(
    data_dir: Path, functions: Mapping[str, Sequence[str]] | None = None, *, patience: float = 30.0
) -> LocalCloud:
    runner = Runner(functions or {}, account=ACCOUNT, region=REGION, patience=patience)
    return LocalCloud(data_dir, account=ACCOUNT, region=REGION, runner=runner)
