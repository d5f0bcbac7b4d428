"""Calls as gRPC writes them: Triton's own messages, and how a channel to it is set up."""

from dataclasses import dataclass
from typing import Final, Protocol, cast

import grpc
import tritonclient.grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor

from sightline.transport.address import Tls
from sightline.transport.calls import MAX_ANSWER_BYTES, Calls, Question, Reply
from sightline.transport.failures import tls_refused

CHANNEL_OPTIONS: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    # In a forked process a channel of its own, and not the connection that its parent has.
    ("grpc.use_local_subchannel_pool", 1),
    # A server that comes back is found again within a second, not after gRPC's growing pauses.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


@dataclass(frozen=True)
class GrpcRequest:
    """A procedure of Triton's GRPCInferenceService, and the message for it."""

    procedure: str
    message: Message


class GrpcCalls(Calls[GrpcRequest, Message]):
    """`Calls` in protobuf."""

    def _metadata(self) -> GrpcRequest:
        return GrpcRequest("ServerMetadata", service_pb2.ServerMetadataRequest())

    def _statistics(self, model: str = "", version: str = "") -> GrpcRequest:
        return GrpcRequest("ModelStatistics", service_pb2.ModelStatisticsRequest(name=model, version=version))

    def _configuration(self, model: str, version: str) -> GrpcRequest:
        return GrpcRequest("ModelConfig", service_pb2.ModelConfigRequest(name=model, version=version))

    def _inference(self, question: Question) -> GrpcRequest:
        values = question.values
        message = service_pb2.ModelInferRequest(
            model_name=question.model,
            model_version=question.version,
            id=question.request_id,
            inputs=[
                service_pb2.ModelInferRequest.InferInputTensor(name=question.input_name, datatype=question.datatype, shape=values.shape)
            ],
            outputs=[service_pb2.ModelInferRequest.InferRequestedOutputTensor(name=question.output_name)],
            raw_input_contents=[serialize_byte_tensor(values).item() if question.datatype == "BYTES" else values.tobytes()],
        )
        message.parameters["timeout"].int64_param = question.timeout_us
        if question.classes:
            message.outputs[0].parameters["classification"].int64_param = question.classes
        return GrpcRequest("ModelInfer", message)

    def _document(self, answer: Message, model: str) -> object:  # noqa: ARG002 - what went wrong came as an error
        return MessageToDict(answer, preserving_proto_field_name=True)

    def _reply(self, answer: Message, model: str) -> Reply:  # noqa: ARG002 - as above
        message = cast("_InferResponse", answer)
        return Reply(message.id, message.model_version, tritonclient.grpc.InferResult(answer))


class _InferResponse(Protocol):
    """What is read of Triton's message."""

    id: str
    model_version: str


def credentials_of(tls: Tls) -> grpc.ChannelCredentials:
    """Return the credentials of a channel with TLS. Raises UsageError for a file that cannot be read."""
    try:
        authority, key, certificate = (None if file is None else file.read_bytes() for file in (tls.ca_file, tls.key_file, tls.cert_file))
    except OSError as error:
        raise tls_refused(error) from None
    return grpc.ssl_channel_credentials(authority, key, certificate)
