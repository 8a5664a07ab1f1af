"""Settings: one file, `inbound.yaml`; every key also as `INBOUND_<KEY>` in the environment, which wins.

Each class is one mapping of the file, each field one key. README's table of settings is checked against this module.
"""

from dataclasses import field
from pathlib import Path
from typing import Literal

from inbound.schema import keys

MIB = 1024 * 1024


@keys
class Tls:
    """STARTTLS with this certificate chain and key (PEM files)."""

    certificate: Path
    key: Path


@keys
class DnsblZone:
    """One DNSBL zone (RFC 5782). `codes` says which A records count and what they mean; without it, 127.0.0.2 to 127.0.0.255."""

    zone: str
    codes: dict[str, str] = field(default_factory=dict)


@keys
class BlockList:
    """The operator's own lists. Allow comes before deny and before every DNSBL. `record_only` leaves the matter to rules."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    dnsbl: tuple[DnsblZone, ...] = ()
    record_only: bool = False


@keys
class Spam:
    """Marks of the spam score: PASS below `low`, GRAY from there, FAIL from `high`."""

    low: float = 3.0
    high: float = 6.0  # SpamAssassin calls 5.0 spam; we also have a middle


@keys
class Limits:
    """Caps on what comes from outside. Each has its precedent beside it."""

    message_bytes: int = 40 * MIB  # SES stores up to 40 MB
    recipients: int = 100  # RFC 5321 4.5.3.1.8; postfix smtpd_recipient_limit is 1000
    header_bytes: int = 256 * 1024  # postfix header_size_limit is 102400 for one field
    header_fields: int = 1000
    command_bytes: int = 2048  # postfix line_length_limit; RFC 5321 4.5.3.1.4 says 512, extensions add to it
    line_bytes: int = 65_536  # RFC 5321 says 998; real senders exceed it, clients must not fill memory with one line
    connections: int = 500  # in all
    connections_per_ip: int = 20
    errors: int = 20  # postfix smtpd_hard_error_limit; counted anew behind each message
    idle_commands: int = 100  # NOOP, RSET, VRFY, EHLO and the like; postfix smtpd_junk_command_limit
    messages_per_connection: int = 100
    command_seconds: float = 300.0  # RFC 5321 4.5.3.2.7
    handshake_seconds: float = 30.0  # STARTTLS, and a PROXY header; postfix smtpd_starttls_timeout is 300
    data_idle_seconds: float = 180.0  # RFC 5321 4.5.3.2.5
    data_seconds: float = 1800.0
    bytes_in_flight: int = 1024 * MIB  # over all connections; when it is spent, sockets are not read


@keys
class Deadlines:
    """Seconds that each step may take."""

    dns_query: float = 3.0
    stage: float = 10.0  # each stage, DNS and all
    virus: float = 30.0  # clamd on a large archive
    deliver: float = 20.0  # all actions of a message; 30 s more while a function answers


@keys
class Listener:
    """One address to listen on. `proxy`: clients are proxies that send a PROXY protocol header, from `proxy_from` only."""

    address: str
    proxy: bool = False


@keys
class Settings:
    """Everything an operator can set."""

    listen: tuple[str | Listener, ...] = ("127.0.0.1:2525",)
    hostname: str = "localhost"  # our name in the greeting, in Received and, unless set apart, as authserv-id
    authserv_id: str = ""
    domains: tuple[str, ...] = ("example.com",)  # we take mail for these: `d` for the domain, `.d` for its subdomains
    rules: Path = Path("rules")
    cloud: Literal["local", "aws"] = "local"
    data_dir: Path = Path("data")  # DATA of design 7: buckets, keys, functions, topics, and the ledger
    account: str = "000000000000"
    region: str = "us-east-1"
    endpoint_url: str | None = None  # for every AWS service; boto3's own AWS_ENDPOINT_URL_<SERVICE> work too
    functions: dict[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # cloud: local, the command of each Lambda function
    secret: str = ""  # the installation secret behind message ids; made in `data_dir` when empty
    resolver: str = ""  # IP[:PORT] of the DNS resolver; the system's when empty
    clamd: str = ""  # unix:/path or tcp:HOST:PORT; without it the virus verdict is DISABLED
    tls: Tls | None = None
    proxy_from: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    block_list: BlockList = BlockList()
    spam: Spam = Spam()
    limits: Limits = Limits()
    deadlines: Deadlines = Deadlines()
    log: Literal["auto", "text", "json"] = "auto"
