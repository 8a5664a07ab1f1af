"""A web service that the `webhook` action calls: `WEBHOOK_SECRET=… flask --app webhook_flask run` behind a server with TLS.

Nobody else can call it (HMAC signature), nobody can call it again with an old call (timestamp), and a call that is repeated
because its answer was lost does nothing twice (id). The rule's `payload` is `content` or `raw`, so that the message comes along.
"""

import os
import threading
import time

from flask import Flask, request

import inbound
from inbound.errors import NotSigned, Unconsumable

REMEMBER = 600.0  # seconds: twice the time in which a signature counts

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 64 * 1024 * 1024
app.config["TICKETS"] = []
_done: dict[str, float] = {}  # of one process; several share a table
_one_at_a_time = threading.Lock()


@app.post("/mail")
def mail() -> tuple[str, int]:
    """Take one message. 2xx: done. 4xx: do not try again. 5xx, as for whatever is raised: try again."""
    body = request.get_data()
    try:
        call = inbound.verify_webhook(body, request.headers, os.environ["WEBHOOK_SECRET"])
        message = inbound.consume(body, authserv_ids=[os.environ.get("MAIL_HOSTNAME", "localhost")])
    except NotSigned:
        return "not signed", 401
    except Unconsumable as failure:
        return failure.reason, 422
    with _one_at_a_time:
        for old in [one for one, when in _done.items() if when < time.time() - REMEMBER]:
            del _done[old]
        if message is not None and call not in _done:
            app.config["TICKETS"].append((message.id, message.subject, message.passed("dmarc")))
            _done[call] = time.time()
    return "", 204
