"""inbound: a self-hosted Amazon SES email receiving, that also says why.

The path of a message, and the module where each step is:

    sender ──▶ receive ──▶ gate ──▶ examine ──────▶ rules ──▶ deliver ──▶ reply
               SMTP        who?     stages/         which     actions/    one line,
               DATA        to us?   spf dkim dmarc  apply     s3 lambda   and true
                                    spam virus                sns bounce

`transaction` is that path as code, `app` puts the parts together, `cli` and `receive` are its two edges. Stages find, rules
decide, actions act. What could not be finished is deferred (`parking`), so that 250 always means done.
"""

__version__ = "0.1.0"
