"""inbound: a self-hosted Amazon SES email receiving, that also says why.

The path of a message, and the module where each step is:

    sender ──▶ receive ──▶ gate ──▶ examine ──────▶ rules ──▶ deliver ──▶ reply
               SMTP        who?     stages/         which     actions/    one line,
               DATA        to us?   spf dkim dmarc  apply     s3 lambda   and true
                                    spam virus                sns bounce

`transaction` is that path as code, `app` puts the parts together, `cli` and `receive` are its two edges. Stages find, rules
decide, actions act. What could not be finished is deferred (`parking`), so that 250 always means done.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inbound.authentication import authenticate

__all__ = ["__version__", "authenticate"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`inbound.authenticate`, loaded when it is asked for: the checks take 0.3 s to import."""
    if name == "authenticate":
        from inbound.authentication import authenticate  # noqa: PLC0415

        return authenticate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
