"""The settings of a file and of the environment."""

from pathlib import Path

import pytest

from inbound.errors import ConfigurationError
from inbound.settings import Limits, Listener, Settings, Tls, load


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "inbound.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def problems(path: Path | None, environ: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(path, environ)
    return [str(problem) for problem in caught.value.problems]


def test_without_a_file_everything_is_as_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(None, {"PATH": "/bin"}) == Settings()


def test_the_file_sets_what_it_names(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "hostname: mx.example.com\n"
        "account: 000123456789\n"
        "secret: no\n"
        "listen: [127.0.0.1:2525, {address: 127.0.0.1:2526, proxy: yes}]\n"
        "limits: {recipients: 7}\n",
    )
    settings = load(file, {})
    assert settings.hostname == "mx.example.com"
    assert settings.account == "000123456789"
    assert settings.secret == "no"
    assert settings.listen == ("127.0.0.1:2525", Listener(address="127.0.0.1:2526", proxy=True))
    assert settings.limits == Limits(recipients=7)


def test_paths_of_the_file_are_relative_to_it_and_so_are_those_it_leaves_out(tmp_path: Path) -> None:
    file = written(tmp_path, "rules: my/rules\ntls: {certificate: cert.pem, key: /etc/key.pem}\n")
    settings = load(file, {})
    assert settings.rules == tmp_path / "my/rules"
    assert settings.data_dir == tmp_path / "data"
    assert settings.tls == Tls(certificate=tmp_path / "cert.pem", key=Path("/etc/key.pem"))


def test_paths_of_the_environment_are_relative_to_where_the_program_was_started(tmp_path: Path) -> None:
    file = written(tmp_path, "rules: my/rules\ntls: {certificate: cert.pem, key: key.pem}\n")
    settings = load(file, {"INBOUND_RULES": "there", "INBOUND_TLS__KEY": "k.pem"})
    assert settings.rules == Path("there")
    assert settings.tls == Tls(certificate=tmp_path / "cert.pem", key=Path("k.pem"))


def test_the_environment_wins_key_by_key(tmp_path: Path) -> None:
    file = written(tmp_path, "hostname: a.example\nlimits: {recipients: 7, errors: 3}\ndomains: [a.example]\n")
    environ = {
        "INBOUND_HOSTNAME": "b.example",
        "INBOUND_LIMITS__RECIPIENTS": "9",
        "INBOUND_DOMAINS": "[b.example, .b.example]",
        "INBOUND_FUNCTIONS__ticket": "[python3, ticket.py]",
    }
    settings = load(file, environ)
    assert settings.hostname == "b.example"
    assert settings.limits == Limits(recipients=9, errors=3)
    assert settings.domains == ("b.example", ".b.example")
    assert settings.functions == {"ticket": ("python3", "ticket.py")}


def test_a_whole_mapping_of_the_environment_replaces_the_files_and_single_keys_still_win(tmp_path: Path) -> None:
    file = written(tmp_path, "limits: {recipients: 7, errors: 3}\n")
    environ = {"INBOUND_LIMITS__ERRORS": "5", "INBOUND_LIMITS": "{connections: 2, errors: 4}"}
    assert load(file, environ).limits == Limits(connections=2, errors=5)


@pytest.mark.parametrize("secret", ["*star", "a: b", "# none", "%x", "0x10", "null", "[", "'"])
def test_a_secret_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(None, {"INBOUND_SECRET": secret}).secret == secret


def test_nothing_can_be_said_in_the_environment(tmp_path: Path) -> None:
    file = written(tmp_path, "endpoint_url: http://127.0.0.1:1\ntls: {certificate: a, key: b}\n")
    settings = load(file, {"INBOUND_ENDPOINT_URL": "", "INBOUND_TLS": "null"})
    assert settings.endpoint_url is None
    assert settings.tls is None


def test_the_file_may_be_named_by_the_environment_or_lie_where_the_program_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "hostname: a.example\n")
    assert load(None, {"INBOUND_CONFIG": str(tmp_path / "inbound.yaml")}).hostname == "a.example"
    monkeypatch.chdir(tmp_path)
    assert load(None, {}).hostname == "a.example"
    assert load(None, {}).data_dir.parent.samefile(tmp_path)


def test_every_mistake_of_the_file_is_told_at_its_place(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "hostnam: x\n"
        "cloud: asw\n"
        "limits: {recipients: lots, eror: 3, errors: 0}\n"
        "domains: example.com\n"
        "block_list: {deny: [300.0.0.1]}\n"
        "tls: {certificate: a}\n"
        "limits: {}\n",
    )
    assert sorted(problems(file, {})) == [
        f"{file}:1:1: unknown key 'hostnam', did you mean 'hostname'?",
        f"{file}:2:8: expected 'local' or 'aws', found 'asw', did you mean 'aws'?",
        f"{file}:3:22: expected a whole number, found 'lots'",
        f"{file}:3:28: unknown key 'eror', did you mean 'errors'?",
        f"{file}:3:45: input should be greater than 0",
        f"{file}:4:10: expected a list, found 'example.com': write [example.com]",
        f"{file}:5:21: '300.0.0.1' is no IP address and no CIDR network",
        f"{file}:6:6: the key 'key' is missing",
        f"{file}:7:1: the key 'limits' was there before, at line 3",
    ]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("INBOUND_HOSTNAM", "x", "sets no key: unknown key 'hostnam', did you mean 'hostname'?"),
        ("INBOUND_LIMITS__RECIPIENT", "1", "sets no key: unknown key 'recipient', did you mean 'recipients'?"),
        ("INBOUND_LIMITS__RECIPIENTS", "x", "expected a whole number, found 'x'"),
        ("INBOUND_HOSTNAME__X", "x", "hostname has no keys of its own"),
        ("INBOUND_CLOUD", "gcp", "expected 'local' or 'aws', found 'gcp'"),
    ],
)
def test_a_variable_that_sets_nothing_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert problems(None, {name: value}) == [f"{name}: {says}"]


def test_a_list_in_the_environment_that_is_no_yaml_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (problem, *_) = problems(None, {"INBOUND_DOMAINS": "[a"})
    assert problem.startswith("INBOUND_DOMAINS:2:1: ")
    assert "cannot be read as YAML" in problem


@pytest.mark.parametrize(
    ("octets", "says"),
    [
        (None, "the settings cannot be read: No such file or directory"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"- a\n", "expected the keys of the settings, found a list"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, octets: bytes | None, says: str) -> None:
    file = tmp_path / "inbound.yaml"
    if octets is not None:
        file.write_bytes(octets)
    (problem,) = problems(file, {})
    assert problem.endswith(says)


def test_an_address_among_the_domains_is_refused(tmp_path: Path) -> None:
    (problem,) = problems(written(tmp_path, "domains: [me@example.com]\n"), {})
    assert problem.endswith("name the domain here and the address in a rule")


def test_domains_are_kept_in_their_normal_form(tmp_path: Path) -> None:
    assert load(written(tmp_path, "domains: [Bücher.example]\n"), {}).domains == ("xn--bcher-kva.example",)


def test_every_mistake_in_a_block_list_is_told_at_its_place(tmp_path: Path) -> None:
    file = tmp_path / "inbound.yaml"
    file.write_text(
        """\
domains: [ours.test, not a domain]
proxy_from: [nowhere]
block_list:
  allow: [192.0.2.0/33]
  deny: [192.0.2, fine.example]
  dnsbl:
    - zone: bad zone
    - {zone: bl.test, codes: {192.0.2.1: listed, 127.0.0: odd, 127.0.0.2: fine}}
"""
    )
    with pytest.raises(ConfigurationError) as caught:
        load(file, {})
    assert sorted({(problem.line, problem.column) for problem in caught.value.problems}) == [
        (1, 22),
        (2, 14),
        (4, 11),
        (5, 10),
        (5, 19),
        (7, 13),
        (8, 42),
        (8, 59),
    ]
