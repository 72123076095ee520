"""An exchange of the load generator: when an answer is complete."""

from __future__ import annotations

from smmf_core.loadgen.exchange import Exchange, Outcome

# Such a head comes alone from servers that write it before the first token.
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"
BODY = b'data: {"choices":[{"text":"a","finish_reason":"length"}]}\n\ndata: [DONE]\n\n'


def test_a_head_that_ends_like_a_last_chunk_is_no_answer() -> None:
    exchange = Exchange(Outcome(0.0), is_stream=True)
    assert not exchange.feed(HEAD, 1.0)
    assert not exchange.feed(b"%x\r\n%s\r\n" % (len(BODY), BODY), 2.0)
    assert exchange.feed(b"0\r\n\r\n", 3.0)
    outcome = exchange.close(3.0)
    assert (outcome.error, outcome.first_s, outcome.end_s) == ("", 2.0, 3.0)
