"""checkdmarc's own discovery (RFC 9989 4.10) and ours find the same record, for author domains that exist."""

import asyncio
import random
from typing import Any

import dns.resolver
import pytest
from checkdmarc.dmarc import DMARCRecordNotFound, query_dmarc_record

from inbound.clients.dns import Resolver
from inbound.stages.alignment import walk
from inbound.testing import DnsServer

LABELS = ("bank", "giant", "mail", "a", "b", "c", "d", "e", "f", "g")


def names(seed: int) -> list[str]:
    """A name of 2 to 11 labels and every name above it; each seed has its own, as checkdmarc remembers all answers."""
    labels = (f"tld{seed}", *LABELS[: random.Random(seed).randrange(1, len(LABELS) + 1)])
    return [".".join(reversed(labels[: at + 1])) for at in range(len(labels))]


def zone(seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    records: dict[str, Any] = {names(seed)[-1]: {"A": ["192.0.2.1"], "TXT": ["hello"]}}
    for name in names(seed):
        if chance.random() < 0.4:
            psd = chance.choice(("", "", "", "; psd=y", "; psd=n", "; psd=u", "; PSD = Y"))
            records[f"_dmarc.{name}"] = {
                "TXT": [f"v=DMARC1; p=none; x={name}{psd}", *chance.choice(((), ("v=spf1 -all",)))]
            }
    return records


@pytest.mark.parametrize("seed", range(40))
def test_checkdmarc_finds_the_same_record(seed: int) -> None:
    author = names(seed)[-1]
    with DnsServer(zone(seed)) as server:
        theirs = dns.resolver.Resolver(configure=False)
        theirs.nameservers, theirs.port = ["127.0.0.1"], server.port
        try:
            found = query_dmarc_record(author, resolver=theirs, ignore_unrelated_records=True)
        except DMARCRecordNotFound:
            found = {"location": "", "record": ""}
        ours = asyncio.run(walk(author, Resolver(server.address))).policy
    assert (found["location"], found["record"]) == ((ours.domain, ours.text) if ours else ("", ""))
