"""Reads and writes `config.pbtxt` through NVIDIA's own protobuf message; no other module knows it.

A `ModelConfig` carries the message that it was read from, so that writing a changed value keeps every setting that is no field of it.
Quotes, line breaks and other alphabets come back as they were, since the message's own writer escapes them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType
from tritonclient.grpc.model_config_pb2 import ModelConfig as Message
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup as InstanceGroupMessage

from sightline.errors import ContractError
from sightline.repository.config import (
    Accelerator,
    EnsembleStep,
    InstanceGroup,
    ModelConfig,
    Tensor,
    VersionPolicy,
    WarmUp,
    WarmUpTensor,
)

ProtobufMessage: TypeAlias = Any
"""A message of tritonclient's model_config_pb2, or a field of one: they are made at run time and have no types."""


def parse_config(text: str, where: str) -> ModelConfig:
    """Read the text of a `config.pbtxt`; `where` names it in messages. Raises ContractError, with the place in the text, if it is none."""
    unknown = ""
    try:
        try:
            message = text_format.Parse(text, Message())
        except text_format.ParseError as error:
            # A newer Triton's fields are its own business, but to write the file again would lose them.
            message, unknown = text_format.Parse(text, Message(), allow_unknown_field=True), str(error)
    except text_format.ParseError as error:
        raise ContractError(f"{where}: no model configuration: {error}. Restore the file that was published") from None
    return replace(_read(message), unknown_settings=unknown, source=message.SerializeToString(deterministic=True))


def config_text(config: ModelConfig) -> str:
    """Write a `config.pbtxt`: ASCII, and the same for the same value. Settings that were read and are no field here are kept."""
    text: str = text_format.MessageToString(_message(config), as_utf8=False)
    return text


def differing_settings(published: ModelConfig, other: ModelConfig) -> list[str]:
    """Return Triton's names of the settings in which `published` is not what `other` says, those that are no field here among them."""
    one, two = _message(published), _message(other)
    return [descriptor.name for descriptor in two.DESCRIPTOR.fields if getattr(two, descriptor.name) != getattr(one, descriptor.name)]


def _message(config: ModelConfig) -> ProtobufMessage:
    """The protobuf message: the one that was read, with the fields that differ from it written anew."""
    message = Message.FromString(config.source)
    present = _read(message)
    for name, write in WRITERS.items():
        value = getattr(config, name)
        if value != getattr(present, name):
            write(message, value)
    return message


def _read(message: ProtobufMessage) -> ModelConfig:
    """The values of `ModelConfig`'s fields in a protobuf message."""
    accelerators = message.optimization.execution_accelerators.gpu_execution_accelerator
    delay_us = message.dynamic_batching.max_queue_delay_microseconds if message.HasField("dynamic_batching") else None
    return ModelConfig(
        name=message.name,
        backend=message.backend,
        platform=message.platform,
        default_file=message.default_model_filename,
        max_batch_size=message.max_batch_size,
        inputs=tuple(Tensor(item.name, DataType.Name(item.data_type), tuple(item.dims), optional=item.optional) for item in message.input),
        outputs=tuple(Tensor(item.name, DataType.Name(item.data_type), tuple(item.dims), item.label_filename) for item in message.output),
        policy=_policy(message.version_policy),
        instance_groups=tuple(
            InstanceGroup(InstanceGroupMessage.Kind.Name(item.kind), item.count, tuple(item.gpus), item.name, item.rate_limiter.priority)
            for item in message.instance_group
        ),
        queue_delay_us=delay_us,
        warm_ups=tuple(map(_warm_up, message.model_warmup)),
        gpu_accelerators=tuple(Accelerator(item.name, _pairs(item.parameters)) for item in accelerators),
        plan_files=MappingProxyType(dict(message.cc_model_filenames)),
        steps=tuple(
            EnsembleStep(item.model_name, item.model_version, _pairs(item.input_map), _pairs(item.output_map))
            for item in message.ensemble_scheduling.step
        ),
        parameters=MappingProxyType({key: value.string_value for key, value in message.parameters.items()}),
    )


def _policy(policy: ProtobufMessage) -> VersionPolicy:
    match policy.WhichOneof("policy_choice"):
        case "all":
            return VersionPolicy("all")
        case "specific":
            return VersionPolicy("specific", versions=tuple(policy.specific.versions))
        case _:
            return VersionPolicy("latest", policy.latest.num_versions)


def _warm_up(warm_up: ProtobufMessage) -> WarmUp:
    tensors = (
        WarmUpTensor(name, DataType.Name(item.data_type), tuple(item.dims), item.input_data_file)
        for name, item in sorted(warm_up.inputs.items())
    )
    return WarmUp(warm_up.name, warm_up.batch_size, tuple(tensors))


def _pairs(mapping: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(mapping.items()))


def _write_tensors(messages: ProtobufMessage, tensors: Sequence[Tensor]) -> None:
    del messages[:]
    for tensor in tensors:
        more = {"label_filename": tensor.label_file} if tensor.label_file else {"optional": True} if tensor.optional else {}
        messages.add(name=tensor.name, data_type=DataType.Value(tensor.data_type), dims=tensor.dims, **more)


def _write_policy(message: ProtobufMessage, policy: VersionPolicy) -> None:
    message.ClearField("version_policy")
    match policy.kind:
        case "all":
            message.version_policy.all.SetInParent()
        case "specific":
            message.version_policy.specific.versions[:] = policy.versions
        case "latest":
            message.version_policy.latest.num_versions = policy.count


def _write_instance_groups(message: ProtobufMessage, groups: Sequence[InstanceGroup]) -> None:
    if len(groups) != len(message.instance_group):
        del message.instance_group[:]
        for _ in groups:
            message.instance_group.add()
    for written, group in zip(message.instance_group, groups, strict=True):
        written.kind, written.count = InstanceGroupMessage.Kind.Value(group.kind), group.count
        written.gpus[:] = group.gpus
        written.name = group.name
        if group.priority or written.HasField("rate_limiter"):
            written.rate_limiter.priority = group.priority


def _write_queue_delay(message: ProtobufMessage, delay_us: int | None) -> None:
    message.ClearField("dynamic_batching")
    if delay_us is not None:
        # Without preferred sizes: whatever waits while the model works is its next batch, and, with no delay, a lone request does not
        # wait for company. (NVIDIA advises preferred sizes only where single sizes are much faster than their neighbours.)
        message.dynamic_batching.max_queue_delay_microseconds = delay_us
        message.dynamic_batching.SetInParent()


def _write_warm_ups(message: ProtobufMessage, warm_ups: Sequence[WarmUp]) -> None:
    del message.model_warmup[:]
    for warm_up in warm_ups:
        written = message.model_warmup.add(name=warm_up.name, batch_size=warm_up.batch_size)
        for tensor in warm_up.inputs:
            sent = written.inputs[tensor.name]
            sent.data_type = DataType.Value(tensor.data_type)
            sent.dims.extend(tensor.dims)
            if tensor.file:
                sent.input_data_file = tensor.file
            else:
                sent.zero_data = True


def _write_accelerators(message: ProtobufMessage, accelerators: Sequence[Accelerator]) -> None:
    written = message.optimization.execution_accelerators.gpu_execution_accelerator
    del written[:]
    for accelerator in accelerators:
        written.add(name=accelerator.name, parameters=dict(accelerator.parameters))
    if not message.optimization.execution_accelerators.ByteSize():
        message.optimization.ClearField("execution_accelerators")


def _write_plan_files(message: ProtobufMessage, files: Mapping[str, str]) -> None:
    message.ClearField("cc_model_filenames")
    for capability, name in files.items():
        message.cc_model_filenames[capability] = name


def _write_steps(message: ProtobufMessage, steps: Sequence[EnsembleStep]) -> None:
    del message.ensemble_scheduling.step[:]
    for step in steps:
        message.ensemble_scheduling.step.add(
            model_name=step.model, model_version=step.version, input_map=dict(step.inputs), output_map=dict(step.outputs)
        )


def _write_parameters(message: ProtobufMessage, parameters: Mapping[str, str]) -> None:
    for key in set(message.parameters) - set(parameters):
        del message.parameters[key]
    for key, value in parameters.items():
        message.parameters[key].string_value = value


def _write(name: str) -> Callable[..., None]:
    return lambda message, value: setattr(message, name, value)


WRITERS: Final[Mapping[str, Callable[..., None]]] = {
    "name": _write("name"),
    "backend": _write("backend"),
    "platform": _write("platform"),
    "default_file": _write("default_model_filename"),
    "max_batch_size": _write("max_batch_size"),
    "inputs": lambda message, tensors: _write_tensors(message.input, tensors),
    "outputs": lambda message, tensors: _write_tensors(message.output, tensors),
    "policy": _write_policy,
    "instance_groups": _write_instance_groups,
    "queue_delay_us": _write_queue_delay,
    "warm_ups": _write_warm_ups,
    "gpu_accelerators": _write_accelerators,
    "plan_files": _write_plan_files,
    "steps": _write_steps,
    "parameters": _write_parameters,
}
"""How item field of `ModelConfig` is written into the message."""
