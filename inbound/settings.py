"""Settings: one file, `inbound.yaml`; every key also as `INBOUND_<KEY>` in the environment, which wins.

Each class is one mapping of the file, each field one key. README's table of settings is checked against this module.
Relative paths of the file, and the paths that are not set, are relative to the file; those of the environment to where
the program was started.
"""

import ipaddress
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from inbound.addresses import a_labels
from inbound.errors import ConfigurationError, Problem
from inbound.recipients import Domains, pattern, sender
from inbound.schema import Node, Place, build, found, keys, parse, unknown

MIB = 1024 * 1024

FILE = "inbound.yaml"
VARIABLE = "INBOUND_"  # and the key in capitals; the keys of a mapping behind `__`: INBOUND_LIMITS__RECIPIENTS
NAMES_THE_FILE = "INBOUND_CONFIG"


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no IP address and no CIDR network") from None
    return text


def _domain(text: str) -> str:
    domain = pattern(text)
    if "@" in domain:
        raise ValueError(f"{text!r} is an address; name the domain here and the address in a rule")
    return domain


def _zone(text: str) -> str:
    if not a_labels(text):
        raise ValueError(f"{text!r} is no domain name")
    return text


def _host(text: str) -> str:
    """A name in A-labels, an IP address, or "" for none."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        name = a_labels(text)
    if text and not name:
        raise ValueError(f"{text!r} is no host name and no IP address; the port is a key of its own")
    return name


def _own_domain(text: str) -> str:
    if text and (text.startswith(".") or not a_labels(text)):
        raise ValueError(f"{text!r} is no domain name")
    return a_labels(text)


def _return_code(text: str) -> str:
    """An address or network of RFC 5782 2.1's 127.0.0.0/8."""
    try:
        within = ipaddress.IPv4Network(text).subnet_of(ipaddress.IPv4Network("127.0.0.0/8"))
    except ValueError:
        within = False
    if not within:
        raise ValueError(f"{text!r} is no return code of a DNSBL: those are addresses in 127.0.0.0/8")
    return text


Network = Annotated[str, AfterValidator(_network)]
Zone = Annotated[str, AfterValidator(_zone)]
ReturnCode = Annotated[str, AfterValidator(_return_code)]
Domain = Annotated[str, AfterValidator(_domain)]
Host = Annotated[str, AfterValidator(_host)]
OwnDomain = Annotated[str, AfterValidator(_own_domain)]
Port = Annotated[int, Field(gt=0, le=65_535)]
TlsPolicy = Literal["none", "opportunistic", "require", "verify", "implicit"]
ENCRYPTED = frozenset({"require", "verify", "implicit"})  # the policies with which nothing goes out in clear
USER_IN_CLEAR = "a user is told inside TLS only: tls must be require, verify or implicit"
LONGEST_DELAY = 3600.0  # seconds
Count = Annotated[int, Field(gt=0)]
Allowed = Annotated[int, Field(ge=0)]
Pause = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Sender = Annotated[str, AfterValidator(sender)]
Delay = Annotated[float, Field(gt=0, le=LONGEST_DELAY, allow_inf_nan=False)]
Patience = Annotated[float, Field(ge=14_400, allow_inf_nan=False)]  # RFC 5321 4.5.4.1: queues may rest for hours


@keys
class Certificate:
    """A certificate chain and its key (PEM files)."""

    certificate: Path  # PEM, the chain from our own certificate up
    key: Path  # PEM, its private key, without a pass phrase


@keys
class Tls:
    """TLS with this certificate chain and key (PEM files); `more` are for clients that ask for a name of theirs (SNI)."""

    certificate: Path  # PEM, the chain from our own certificate up
    key: Path  # PEM, its private key, without a pass phrase
    more: tuple[Certificate, ...] = ()  # further ones, for other host names of ours


@keys
class DnsblZone:
    """One DNSBL zone (RFC 5782). Without `codes` every record from 127.0.0.2 to 127.0.0.255 is a listing."""

    zone: Zone  # such as zen.spamhaus.org
    codes: dict[ReturnCode, str] = field(default_factory=dict)  # what each A record means; no other counts then


@keys
class BlockList:
    """The operator's own lists. Allow comes before deny and before every DNSBL. `record_only` leaves the matter to rules."""

    allow: tuple[Network, ...] = ()  # addresses and CIDR networks, IPv4 and IPv6
    deny: tuple[Network, ...] = ()  # the same; refused at RCPT with 554
    dnsbl: tuple[DnsblZone, ...] = ()  # zones to ask; one that does not answer lists nobody
    record_only: bool = False  # refuse nothing, leave it to rules: `blocked`, `dnsbl`


@keys
class Spam:
    """Marks of the spam score: PASS below `low`, GRAY from there, FAIL from `high`."""

    low: float = 3.0  # from here it may be spam
    high: float = 6.0  # SpamAssassin calls 5.0 spam; we also have a middle


@keys
class Trusted:
    """Forwarders whose verdict is offered to rules (`upstream`), beside our own. Takes effect when both lists have entries."""

    authserv_ids: tuple[str, ...] = ()  # names in their Authentication-Results (RFC 8601), which they add on top
    forwarders: tuple[Network, ...] = ()  # addresses and CIDR networks that they send from


@keys
class Reports:
    """DMARC aggregate reports (RFC 9990) about the domains that others write from: collected, never sent by themselves."""

    collect: bool = False  # count each judged message in `data_dir`
    org_name: str = ""  # who reports; the hostname when empty
    email: str = ""  # whom to ask about a report; postmaster at the first of `domains` when empty
    extra_contact_info: str = ""  # such as the address of a page
    keep_days: Count = 30  # then a day is forgotten


@keys
class Relay:
    """The next hop: where DSNs and reports go, and what the `relay` action hands on when it names no host.

    `tls`: `opportunistic` is STARTTLS where it is offered, whoever answers; `require` goes nowhere without; `verify` wants a
    certificate for the host's name too; `implicit` is `verify` from the first octet (RFC 8314), usually port 465. With `user`
    it must be one of the last three. SRS: see rules.md.
    """

    host: Host = ""  # its name or address; nothing leaves while it is empty
    port: Port = 25  # 587 for submission, 465 with `tls: implicit`
    tls: TlsPolicy = "opportunistic"  # none, opportunistic, require, verify, implicit
    ca_file: Path | None = None  # PEM, the authorities that `verify` and `implicit` trust; the system's when not set
    user: str = ""  # AUTH PLAIN or LOGIN, inside TLS only
    password: str = field(default="", repr=False)  # in the environment: INBOUND_RELAY__PASSWORD
    password_file: Path | None = None  # or its first line; read for each session, so it may change
    connections: Count = 10  # at a time, for each next hop and worker; postfix's default concurrency is 20
    idle_seconds: Seconds = 5.0  # an open session waits so long for a next message
    command_seconds: Seconds = 60.0  # for each reply, and for a free connection; RFC 5321 4.5.3.2 says minutes
    seconds: Delay = 240.0  # for a whole message; our own sender waits meanwhile, 10 minutes by RFC 5321 4.5.3.2.6
    received: Count = 50  # Received fields in a message handed on; more is a loop. postfix hopcount_limit
    srs_domain: OwnDomain = ""  # one of `domains`: senders are rewritten into it, and what comes back is handed on
    srs_days: Count = 21  # so long a rewritten sender can be written to; postsrsd's default

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.user and self.tls not in ENCRYPTED:
            raise ValueError(USER_IN_CLEAR)
        if self.user and not (self.password or self.password_file):
            raise ValueError("a user needs password_file, or a password in the environment")
        if self.srs_domain and not self.host:
            raise ValueError("srs_domain needs a host that takes what comes back to rewritten senders")
        return self


@keys
class Dsn:
    """Delivery status notifications (RFC 3464), for what could not be refused in the SMTP session: sent to authenticated senders.

    `relay` is the next hop of the settings; without one nobody is told. `ses` is SES's SendRawEmail and needs `cloud: aws`; it
    sends from `sender`, which must be a verified identity there, and not from the null reverse-path. `outbox` is a directory in
    `data_dir`, for a program of yours that sends what lies there.
    """

    through: Literal["relay", "ses", "outbox"] = "relay"  # how they are sent
    sender: Sender = ""  # From, where a bounce names no sender of its own; MAILER-DAEMON at the hostname when empty
    per_hour: Count = 20  # to one sender; then bounces are suppressed


@keys
class Limits:
    """Caps on what comes from outside. Each has its precedent beside it."""

    message_bytes: Count = 40 * MIB  # SES stores up to 40 MB
    recipients: Count = 100  # RFC 5321 4.5.3.1.8; postfix smtpd_recipient_limit is 1000
    header_bytes: Count = 256 * 1024  # postfix header_size_limit is 102400 for one field
    header_fields: Count = 1000  # more are refused, 552
    command_bytes: Count = 2048  # postfix line_length_limit; RFC 5321 4.5.3.1.4 says 512, extensions add to it
    line_bytes: Count = 65_536  # RFC 5321 says 998; real senders exceed it, clients must not fill memory with one line
    bare_line_ends: Literal["refuse", "normalise"] = "refuse"  # a lone CR or LF; postfix smtpd_forbid_bare_newline
    connections: Count = 500  # in all workers together
    connections_per_ip: Count = 20  # from one address or /64, over all workers; postfix's count limit is 50
    errors: Count = 20  # postfix smtpd_hard_error_limit; counted anew behind each message
    commands: Count = 20_000  # in one session: a hundred messages to a hundred recipients, and as many again
    idle_commands: Count = 100  # NOOP, RSET, VRFY, EHLO and the like; postfix smtpd_junk_command_limit
    soft_errors: Allowed = 10  # errors and refused recipients, then each reply waits; postfix smtpd_soft_error_limit
    tarpit_seconds: Pause = 1.0  # so long; postfix smtpd_error_sleep_time
    refused_recipients: Count = 20  # in one session; postfix counts them as errors
    messages_per_connection: Count = 100  # then 421; the sender connects again
    messages_per_minute: Allowed = 0  # from one address or /64, over all workers; 0: as many as come
    greet_seconds: Pause = 0.0  # before the greeting; who speaks meanwhile is refused; postscreen_greet_wait is 6
    command_seconds: Seconds = 300.0  # RFC 5321 4.5.3.2.7
    stress_seconds: Seconds = 10.0  # the same while three quarters of the connections are taken; postfix smtpd_timeout
    handshake_seconds: Seconds = 30.0  # STARTTLS, and a PROXY header; postfix smtpd_starttls_timeout is 300
    data_idle_seconds: Seconds = 180.0  # RFC 5321 4.5.3.2.5
    data_seconds: Seconds = 1800.0  # for a whole message
    bytes_in_flight: Count = (
        1024 * MIB
    )  # over all connections, divided between the workers; when it is spent, sockets are not read


@keys
class Greylist:
    """Greylisting (RFC 6647): who is not known yet is answered 451 at RCPT, and taken when it comes again.

    Known is whose mail was taken before, by its network (/24 or /64) or by the domain that passes SPF; who is on the `allow`
    list never waits.
    """

    enabled: bool = False  # every first mail of a stranger comes later; many a bot does not come again
    delay_seconds: Delay = 60.0  # from the first try until a retry is taken, an hour at most; RFC 6647 5 says 1 minute
    retry_seconds: Patience = 86_400.0  # a retry that comes later is a first try again; RFC 6647 5 says 24 hours
    remember_days: Seconds = 36.0  # who has come again, since it wrote last; mail that comes once a month is known
    entries: Count = 200_000  # remembered in all, about 100 octets each, in `data_dir`


@keys
class Deadlines:
    """Seconds that each step may take."""

    dns_query: Seconds = 3.0  # each question, all servers and tries together
    stage: Seconds = 10.0  # each stage, DNS and all
    virus: Seconds = 30.0  # clamd on a large archive
    deliver: Seconds = 20.0  # all actions of a message; 30 s more while a function answers


@keys
class Listener:
    """One address to listen on.

    `proxy`: clients are proxies that send a PROXY protocol header, from `proxy_from` only. `tls`: TLS from the first octet,
    not by STARTTLS (RFC 8314 3).
    """

    address: str  # as in `listen`
    proxy: bool = False  # a PROXY protocol header (v1 or v2) comes first
    tls: bool = False  # TLS from the first octet


@keys
class Settings:
    """Everything an operator can set."""

    listen: tuple[str | Listener, ...] = ("127.0.0.1:2525",)  # addresses `HOST:PORT`, `[IPV6]:PORT`, `:PORT`
    workers: Count | Literal["auto"] = 1  # processes that receive; `auto` is one for each processor
    user: str = ""  # started as root, go on as this user once the addresses of `listen` are taken
    hostname: str = "localhost"  # our name in the greeting, in Received and, unless set apart, as authserv-id
    authserv_id: str = ""  # our name in Authentication-Results; the hostname when empty
    domains: tuple[Domain, ...] = ("example.com",)  # ours: `d` for the domain, `.d` for its subdomains
    rules: Path | None = None  # a directory of rule files, or one file; the shipped rule set when not set
    cloud: Literal["local", "aws"] = "local"  # where buckets, keys, functions and topics are
    data_dir: Path = Path("data")  # the secret and the ledger; with cloud: local buckets, keys and topics too
    account: str = "000000000000"  # in the ARNs of events
    region: str = "us-east-1"  # in the ARNs of events, and where AWS is called
    events: Literal["inbound", "ses"] = "inbound"  # `ses`: what consumers are told is SES's alone, without our own key
    endpoint_url: str | None = None  # for every AWS service; boto3's own AWS_ENDPOINT_URL_<SERVICE> work too
    functions: dict[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # cloud: local, command (or FILE.py:HANDLER) by name
    secret: str = ""  # the installation secret behind message ids; made in `data_dir` when empty
    resolver: str = ""  # IP[:PORT] of the DNS resolver; the system's when empty
    dnssec: Literal["auto", "yes", "no"] = "auto"  # believe `resolver` when it says validated? auto: on this machine
    clamd: str = ""  # unix:/path or tcp:HOST:PORT; when empty /run/clamav/clamd.ctl if it is there, else no scan
    tls: Tls | None = None  # STARTTLS is offered when it is set
    proxy_from: tuple[Network, ...] = ("127.0.0.0/8", "::1/128")  # proxies that are believed
    block_list: BlockList = BlockList()  # see below
    split_recipients: bool = True  # by their possible answers, a transaction each; `no` needs a `relay`, or see `dsn`
    dsn: Dsn = Dsn()  # see below
    greylist: Greylist = Greylist()  # see below
    spam: Spam = Spam()  # see below
    trusted: Trusted = Trusted()  # see below
    reports: Reports = Reports()  # see below
    relay: Relay = Relay()  # see below
    limits: Limits = Limits()  # see below
    deadlines: Deadlines = Deadlines()  # see below
    log: Literal["auto", "text", "json"] = "auto"  # text for a person; auto is text on a terminal

    @property
    def tells(self) -> bool:
        """A sender can be told later of what was refused."""
        return self.dsn.through != "relay" or bool(self.relay.host)


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings of a file and of the environment, which wins. Raises ConfigurationError with every problem.

    Without `path` the file is the one that INBOUND_CONFIG names, or `inbound.yaml` where the program was started, if it is
    there; without any, everything that the environment does not set is as the classes above have it.
    """
    problems: list[Problem] = []
    place = Place(file="the environment")
    file = path or _named(environ)
    whole = Node(place=place, key=place, entries={})
    if file is not None:
        node = _read(file, problems) or whole
        unset = {
            one.name: replace(whole, text=str(one.default), entries=None)
            for one in fields(Settings)
            if one.type is Path
        }
        whole = _beside(replace(node, entries=unset | dict(node.entries or {})), Settings, file.parent)
    for name in sorted(environ, key=lambda name: (name.count("__"), name)):
        if name.startswith(VARIABLE) and name != NAMES_THE_FILE:
            whole = _with(whole, Settings, name.removeprefix(VARIABLE).split("__"), (name, environ[name]), problems)
    settings = build(whole, Settings, problems)
    if settings is not None:
        problems += [_value_at(whole, keys).problem(message) for keys, message in contradictions(settings)]
    if settings is None or problems:
        raise ConfigurationError(problems)
    return settings


NOBODY_IS_TOLD = (
    "recipients that need different answers can share a transaction only where a sender can be told later of those that were "
    "refused: set a `relay`, or another way in `dsn`"
)


def contradictions(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Values that are right alone and not together: the keys that lead to one of them, and what is wrong."""
    if settings.dsn.through == "ses" and settings.cloud != "aws":
        yield ("dsn", "through"), "ses needs cloud: aws"
    if not settings.split_recipients and not settings.tells:
        yield ("split_recipients",), NOBODY_IS_TOLD
    if settings.relay.srs_domain and not Domains(settings.domains).include(settings.relay.srs_domain):
        yield ("relay", "srs_domain"), "none of our `domains`, so what comes back to it would not be taken"


def _value_at(node: Node, keys: Iterable[str]) -> Node:
    for key in keys:
        node = (node.entries or {}).get(key, node)
    return node


def _named(environ: Mapping[str, str]) -> Path | None:
    if environ.get(NAMES_THE_FILE):
        return Path(environ[NAMES_THE_FILE])
    return Path(FILE) if Path(FILE).is_file() else None


def _read(file: Path, problems: list[Problem]) -> Node | None:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        problems.append(Place(file=str(file)).problem(f"the settings cannot be read: {error.strerror}"))
        return None
    except UnicodeDecodeError:
        problems.append(Place(file=str(file)).problem("is not UTF-8 text"))
        return None
    node = parse(text, str(file), problems)
    if node is not None and node.entries is None:
        problems.append(node.problem(f"expected the keys of the settings, found {found(node)}"))
        return None
    return node


def _beside(node: Node, wanted: Any, directory: Path) -> Node:
    """The same value, with the paths in it relative to a directory."""
    if Path in (wanted, *typing.get_args(wanted)) and node.text is not None:
        return replace(node, text=str(directory / node.text))
    kinds = _hints(wanted)
    if not kinds or node.entries is None:
        return node
    entries = {name: _beside(value, kinds.get(name), directory) for name, value in node.entries.items()}
    return replace(node, entries=entries)


def _with(whole: Node, wanted: Any, names: list[str], variable: tuple[str, str], problems: list[Problem]) -> Node:
    """The mapping with one value set by a variable of the environment (its name and text); `names` lead to the value."""
    place = Place(file=variable[0])
    kinds = _hints(wanted)
    name = names[0].lower() if kinds else names[0]
    kind = kinds.get(name) if kinds else typing.get_args(wanted)[1]
    if kind is None:
        problems.append(place.problem(f"sets no key: {unknown('key', names[0].lower(), kinds)}"))
        return whole
    entries = dict(whole.entries or {})
    if len(names) == 1:
        value = _value(variable[1], kind, place, problems)
    elif not _hints(kind) and typing.get_origin(kind) is not dict:
        problems.append(place.problem(f"{name} has no keys of its own"))
        return whole
    else:
        inner = entries.get(name)
        mapping = inner if inner is not None and inner.entries is not None else Node(place=place, key=place, entries={})
        value = _with(mapping, kind, names[1:], variable, problems)
    return replace(whole, entries=entries | {name: value})


def _value(text: str, kind: Any, place: Place, problems: list[Problem]) -> Node:
    """The text of a variable: as it is where a single value is wanted, as YAML where a list or a mapping is."""
    branches = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if any(_hints(branch) or typing.get_origin(branch) in (tuple, dict) for branch in branches):
        node = parse(text, place.file, problems) or Node(place=place, key=place)
        alone = node.text is not None and typing.get_origin(kind) is tuple
        return replace(node, text=None, items=(node,)) if alone else node
    nothing = type(None) in branches and text in ("", "~", "null")
    return Node(place=place, key=place, text=None if nothing else text)


def _hints(kind: Any) -> dict[str, Any]:
    """The keys of a record and their types; none for anything else."""
    branches = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    record = next((branch for branch in branches if is_dataclass(branch)), None)
    return typing.get_type_hints(record) if record else {}
