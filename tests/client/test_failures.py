"""What Triton says while it goes away and comes back is ServerUnavailable, so that who waits goes on; what is wrong for good is not."""

import pytest

from sightline.errors import DeadlineExceeded, ModelError, ModelNotFound, ServerError, ServerUnavailable, SightlineError
from sightline.transport.failures import from_triton

# Seen with Triton 2.51, over both protocols, while it was killed by SIGKILL and SIGTERM, and while its workers were.
SEEN = [
    ("CANCELLED", "StatusCode.CANCELLED"),
    ("Stub process 'tiny_0_0' is not healthy.", "StatusCode.INTERNAL"),
    ("Stub process 'tiny_0_1' is not healthy.", "500"),
    ("Stream removed (Socket closed)", "StatusCode.UNAVAILABLE"),
    ("Stream removed (recvmsg:Connection reset by peer (104))", "StatusCode.UNKNOWN"),
    ("Received RST_STREAM with error code 2", "StatusCode.INTERNAL"),
    ("Request for unknown model: 'tiny' version 1 is not at ready state", "StatusCode.UNAVAILABLE"),
    ("Request for unknown model: 'tiny' has no available versions", "400"),
    ("Server not ready", "StatusCode.UNAVAILABLE"),
    ("failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused", "StatusCode.UNAVAILABLE"),
]


@pytest.mark.parametrize(("message", "status"), SEEN)
def test_a_server_that_goes_away_is_unavailable(message: str, status: str) -> None:
    error = from_triton(status, message, "grpc://h:1", 10, "tiny")
    assert type(error) is ServerUnavailable
    assert message in str(error)


@pytest.mark.parametrize(
    ("message", "status", "kind"),
    [
        ("Request for unknown model: 'tiny' version 9 is not found", "StatusCode.NOT_FOUND", ModelNotFound),
        ("Request for unknown model: 'tiny' is not found", "400", ModelNotFound),
        ("unexpected inference input 'pixel' for model 'tiny'", "StatusCode.INVALID_ARGUMENT", ModelError),
        ("Deadline Exceeded", "StatusCode.DEADLINE_EXCEEDED", DeadlineExceeded),
        ("ONNX Runtime: out of memory", "StatusCode.INTERNAL", ServerError),
        ("out of memory", "500", ServerError),
    ],
)
def test_what_another_call_would_not_mend_is_not(message: str, status: str, kind: type[SightlineError]) -> None:
    assert type(from_triton(status, message, "grpc://h:1", 10, "tiny")) is kind
