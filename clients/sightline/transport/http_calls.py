"""Calls as HTTP writes them: Triton's paths, and bodies that tritonclient writes and reads."""

import json
import os
import ssl
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import tritonclient.http

from sightline.transport.address import Address, Tls
from sightline.transport.calls import MAX_ANSWER_BYTES, Calls, Question, Reply
from sightline.transport.failures import deadline, not_triton, tls_refused, unavailable
from sightline.transport.http_wire import HttpAnswer, HttpRequest, Limits

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
"""Of the JSON in front of binary data (Triton's binary tensor data extension)."""


class HttpCalls(Calls[HttpRequest, HttpAnswer]):
    """`Calls` as requests and answers of HTTP."""

    def __init__(self, address: Address, timeout_s: float, headers: Mapping[str, str]) -> None:
        super().__init__(address.url, timeout_s, headers)
        self._base = f"/{address.path}/v2" if address.path else "/v2"

    def limits(self) -> Limits:
        """Return what a call that begins now may take."""
        return Limits(self.timeout_s, MAX_ANSWER_BYTES)

    def failed(self, error: Exception) -> Exception:
        """Return the member of the error tree for what kept a call from being answered."""
        if isinstance(error, TimeoutError):
            return deadline(self.url, self.timeout_s)
        if isinstance(error, OSError):
            # asyncio puts words of its own in front of the system's.
            return unavailable(self.url, os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error)
        return not_triton(self.url, error)

    def _metadata(self) -> HttpRequest:
        return HttpRequest("GET", self._base)

    def _statistics(self, model: str = "", version: str = "") -> HttpRequest:
        return HttpRequest("GET", f"{self._path(model, version) if model else f'{self._base}/models'}/stats")

    def _configuration(self, model: str, version: str) -> HttpRequest:
        return HttpRequest("GET", f"{self._path(model, version)}/config")

    def _inference(self, question: Question) -> HttpRequest:
        tensor = tritonclient.http.InferInput(question.input_name, list(question.values.shape), question.datatype)
        output = tritonclient.http.InferRequestedOutput(question.output_name, class_count=question.classes)
        body, json_size = tritonclient.http.InferenceServerClient.generate_request_body(
            [tensor.set_data_from_numpy(question.values)], [output], question.request_id, timeout=question.timeout_us
        )
        return HttpRequest("POST", f"{self._path(question.model, question.version)}/infer", body, {HEADER_LENGTH: str(json_size)})

    def _path(self, model: str, version: str) -> str:
        return f"{self._base}/models/{quote(model, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")

    def _document(self, answer: HttpAnswer, model: str) -> object:
        return json.loads(self._accepted(answer, model).body)

    def _reply(self, answer: HttpAnswer, model: str) -> Reply:
        accepted = self._accepted(answer, model)
        length = accepted.headers.get(HEADER_LENGTH.lower())
        result = tritonclient.http.InferenceServerClient.parse_response_body(
            accepted.body, header_length=None if length is None else int(str(length))
        )
        members = dict(result.get_response())
        return Reply(str(members.get("id", "")), str(members["model_version"]), result)

    def _accepted(self, answer: HttpAnswer, model: str) -> HttpAnswer:
        """Return an answer that is one. Raises what the server says has gone wrong, and ValueError for one that is compressed."""
        if answer.headers.get("content-encoding") not in (None, "identity"):
            raise ValueError("compressed, which was not asked for")
        if answer.status != 200:
            raise self.refused(str(answer.status), _words_of(answer), model)
        return answer


def _words_of(answer: HttpAnswer) -> str:
    """Return what an answer says of a failure: Triton's `{"error": "…"}`, or the beginning of whatever a proxy says."""
    text = answer.body[:4096].decode("utf-8", "replace")
    try:
        said = json.loads(answer.body)["error"]
    except (ValueError, TypeError, KeyError, RecursionError):
        said = None
    return said if isinstance(said, str) and said else text or "it gave no reason"


def tls_context(address: Address, tls: Tls) -> ssl.SSLContext | None:
    """Return what TLS to an address is made with; None for a plain connection. Raises UsageError for a file that cannot be read."""
    if not address.secure:
        return None
    try:
        context = ssl.create_default_context(cafile=None if tls.ca_file is None else str(tls.ca_file))
        if tls.cert_file is not None:
            context.load_cert_chain(str(tls.cert_file), None if tls.key_file is None else str(tls.key_file))
    except OSError as error:
        raise tls_refused(error) from None
    return context
