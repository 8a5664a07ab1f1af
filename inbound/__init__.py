"""inbound: a self-hosted Amazon SES email receiving, that also says why.

The path of a message, and the module where each step is:

    sender ──▶ receive ──▶ gate ──▶ examine ──────▶ rules ──▶ deliver ──▶ reply
               SMTP        who?     stages/         which     actions/    one line,
               DATA        to us?   spf dkim dmarc  apply     s3 lambda   and true
                                    spam virus                sns bounce

`transaction` is that path as code, `app` puts the parts together, `cli` and `receive` are its two edges. Stages find, rules
decide, actions act. What could not be finished is deferred (`parking`), so that 250 always means done.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inbound.authentication import authenticate
    from inbound.consumer import (
        aconsume,
        aconsume_bucket,
        aconsume_queue,
        consume,
        consume_bucket,
        consume_queue,
        records,
        verify_webhook,
    )

__all__ = [
    "__version__",
    "aconsume",
    "aconsume_bucket",
    "aconsume_queue",
    "authenticate",
    "consume",
    "consume_bucket",
    "consume_queue",
    "records",
    "verify_webhook",
]

__version__ = "0.1.0"

_HOMES = {  # what is loaded when it is asked for: the checks alone take 0.3 s to import
    **dict.fromkeys(__all__[1:], "inbound.consumer"),
    "authenticate": "inbound.authentication",
}


def __getattr__(name: str) -> object:
    """`inbound.authenticate`, `inbound.consume` and the like."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
