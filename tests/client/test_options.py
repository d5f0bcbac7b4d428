"""What the commands tell of a wait, and what they settle of their options."""

import pickle

import pytest

from sightline.commands.access import Telling
from sightline.commands.options import Server
from sightline.errors import ServerUnavailable
from sightline.transport import Tls


def test_a_wait_that_lasts_is_told_and_told_again_every_ten_seconds() -> None:
    sentences: list[str] = []
    on_wait = Telling(sentences.append)
    for waited_s in (0.0, 0.4, 1.2, 2.0, 11.0, 11.3, 21.4, 0.0, 0.5, 1.1):
        on_wait(ServerUnavailable("nobody answers"), waited_s)
    assert sentences == [f"waiting, for {seconds} s now: nobody answers" for seconds in (1, 11, 21, 1)]


def test_no_text_of_the_options_shows_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_TOKEN", "of-the-environment")
    server = Server("http://localhost:1", 1, 1, Tls(), {"x-key": "of-a-header"}, "of-a-file")
    assert "of-a" not in repr(server)
    assert pickle.loads(pickle.dumps(server.options()))["headers"] == {"x-key": "of-a-header"}
    assert server.headers_sent() == {"x-key": "of-a-header", "authorization": "Bearer of-a-file"}
    assert Server("http://localhost:1", 1, 1, Tls()).headers_sent() == {"authorization": "Bearer of-the-environment"}
