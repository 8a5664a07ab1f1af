"""Mail for tests of the stages."""

from ipaddress import ip_address

from inbound.mail import Client, Headers, IPAddress, Mail

NOW = 1_790_000_000.0
CLIENT_IP = ip_address("192.0.2.1")


def mail_from(
    sender: str = "sender@sender.example",
    *,
    raw: bytes = b"From: sender@sender.example\r\n\r\nhello\r\n",
    client_ip: IPAddress = CLIENT_IP,
    helo: str = "mx.sender.example",
) -> Mail:
    return Mail(
        raw=raw,
        headers=Headers.of(raw),
        client=Client(ip=client_ip, helo=helo),
        mail_from=sender,
        rcpt_to=("to@example.com",),
        received_at=NOW,
        message_id="0" * 40,
    )
