"""What is told of each mail while the receiver runs: lines for a person at a terminal, one JSON document a line otherwise."""

import contextlib
import fcntl
import json
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import orjson

from inbound.receive import Rebuff
from inbound.record import Record, heading, line, plain
from inbound.reply import Reply
from inbound.transaction import Refusal

_REFUSED = {True: "refused at RCPT", False: "deferred at RCPT"}
_REBUFFED = {True: "refused by the edge", False: "deferred by the edge"}

Note = Record | Refusal | Rebuff


class Journal:
    """Writes records and refusals. `form` "auto" is text on a terminal and JSON elsewhere.

    `shared`: processes forked from this one write to the same stream, and take turns.
    """

    def __init__(
        self, form: Literal["auto", "text", "json"], stream: TextIO = sys.stdout, *, shared: bool = False
    ) -> None:
        self._stream = stream
        self._turns = tempfile.TemporaryFile() if shared else None  # noqa: SIM115 - kept while the program runs
        self._json = form == "json" or (form == "auto" and not stream.isatty())

    def __call__(self, note: Note) -> None:
        """Write one, at once."""
        if self._json:
            written = _encoded({"at": _now(), **_document(note)})
        else:
            written = printable(f"{_now()}  " + "\n".join(_lines(note)))
        with self._turn():
            self._stream.write(f"{written}\n")
            self._stream.flush()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """A pipe takes no more than PIPE_BUF (4096) octets in one piece; a record may have more."""
        if self._turns is None:
            yield
            return
        fcntl.lockf(self._turns, fcntl.LOCK_EX)  # between processes, and let go of when one of them dies
        try:
            yield
        finally:
            fcntl.lockf(self._turns, fcntl.LOCK_UN)


def printable(text: str) -> str:
    """The text with control characters and lone surrogates written out, so that no sender can steer a terminal.

    They are written as JSON escapes them (RFC 8259 7), so that a document says what it said.
    """
    if text.isprintable():
        return text
    return "".join(char if char == "\n" or char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _encoded(document: dict[str, Any]) -> str:
    try:
        text = orjson.dumps(document).decode("utf-8")
    except TypeError:  # a lone surrogate, in a header that is no UTF-8
        text = json.dumps(plain(document), ensure_ascii=False, separators=(",", ":"))
    # Of ASCII's control characters JSON escapes all but DEL (RFC 8259 7).
    return text if text.isascii() and "\x7f" not in text else printable(text)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _document(note: Note) -> dict[str, Any]:
    if isinstance(note, Record):
        return {"event": "message", **note.document()}
    if isinstance(note, Rebuff):
        transaction = {} if note.mail_from is None else {"mail_from": note.mail_from, "rcpt_to": list(note.rcpt_to)}
        return {
            "event": _REBUFFED[note.reply.refuses],
            "client": {"ip": note.ip, "helo": note.helo},
            "command": note.command,
            **transaction,
            "reply": _reply(note.reply),
        }
    return {
        "event": _REFUSED[note.reply.refuses],
        "client": {"ip": str(note.client.ip), "helo": note.client.helo},
        "mail_from": note.mail_from,
        "recipient": note.recipient,
        "reply": _reply(note.reply),
    }


def _reply(reply: Reply) -> dict[str, Any]:
    return {"code": reply.code, "enhanced": reply.enhanced, "text": reply.text, "reason": reply.reason}


def _lines(note: Note) -> list[str]:
    if isinstance(note, Record):
        return note.lines()
    if isinstance(note, Rebuff):
        whose = "" if note.mail_from is None else f" for <{note.mail_from}>"
        return [
            _REBUFFED[note.reply.refuses],
            line("from", f"{note.helo or '?'} [{note.ip}]{whose}"),
            *([line("to", ", ".join(note.rcpt_to))] if note.rcpt_to else ()),
            line("reply", f"{note.reply}" + (f" (to {note.command})" if note.command else "")),
        ]
    return [
        _REFUSED[note.reply.refuses],
        *heading(note.client, note.mail_from, note.recipient),
        line("reply", str(note.reply)),
    ]
