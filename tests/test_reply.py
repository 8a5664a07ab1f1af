"""A reply cannot lie, and cannot be made to."""

import pytest

from inbound.reply import Reply, ReplyError


@pytest.mark.parametrize(
    ("code", "enhanced", "text", "says"),
    [
        (550, "4.7.1", "No", "different classes"),
        (250, "5.0.0", "OK", "different classes"),
        (354, "3.0.0", "Go ahead", "not a final reply code"),
        (550, "5.7", "No", "not an enhanced status code"),
        (550, "5.7.1000", "No", "not an enhanced status code"),
        (550, "5.7.1", "", "no text"),
        (550, "5.7.1", "No\r\n250 OK", "other than printable ASCII"),
        (550, "5.7.1", "Nö", "other than printable ASCII"),
        (550, "5.7.1", "x" * 501, "512"),
    ],
)
def test_a_reply_that_no_server_may_send_is_not_built(code: int, enhanced: str, text: str, says: str) -> None:
    if says == "512":
        says = "a reply line has 511 octets"
    with pytest.raises(ReplyError, match=says):
        Reply(code, enhanced, text)


def test_a_reply_is_one_line_and_knows_its_class() -> None:
    refusal = Reply(550, "5.7.1", "No")
    assert str(refusal) == "550 5.7.1 No"
    assert (refusal.accepts, refusal.defers, refusal.refuses) == (False, False, True)
    assert Reply(250, "2.0.0", "OK").accepts
    assert Reply(451, "4.3.0", "Later").defers
