"""How a client behaves in one session, and when that is enough. A message that was taken wipes the slate clean."""

from inbound.receive.replies import TOO_IDLE, TOO_MANY_COMMANDS, TOO_MANY_ERRORS, TOO_MANY_MESSAGES, TOO_MANY_REFUSED
from inbound.reply import Reply
from inbound.settings import Limits


class Conduct:
    """Counts of what a client does wrong or to no end; each returns the farewell when a limit is reached."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._commands = 0
        self._errors = 0
        self._refused_recipients = 0
        self._idle_commands = 0
        self._messages = 0

    @property
    def offends(self) -> bool:
        """It has gone so far that its replies are held back for a while."""
        return self._errors + self._refused_recipients > self._limits.soft_errors

    def says(self) -> Reply | None:
        """A command, whatever it is."""
        self._commands += 1
        return TOO_MANY_COMMANDS if self._commands > self._limits.commands else None

    def errs(self, reply: Reply) -> Reply | None:
        """A command was answered so by the edge."""
        self._errors += reply.refuses
        return TOO_MANY_ERRORS if self._errors >= self._limits.errors else None

    def idles(self) -> Reply | None:
        """A command that brings no mail nearer."""
        self._idle_commands += 1
        return TOO_IDLE if self._idle_commands > self._limits.idle_commands else None

    def names_recipient(self, reply: Reply) -> Reply | None:
        """A recipient was answered so by the transaction."""
        self._refused_recipients += reply.refuses
        return TOO_MANY_REFUSED if self._refused_recipients >= self._limits.refused_recipients else None

    def begins_message(self) -> Reply | None:
        """MAIL."""
        return TOO_MANY_MESSAGES if self._messages >= self._limits.messages_per_connection else None

    def brings_message(self, reply: Reply) -> None:
        """A message came to its end and was answered so."""
        self._messages += 1
        self._idle_commands = 0
        if reply.accepts:
            self._errors = self._refused_recipients = 0
