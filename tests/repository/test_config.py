"""config.pbtxt is complete, agrees with the ONNX file, survives hostile strings, and a contradiction in it is found."""

from dataclasses import replace

import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from sightline.card import CARD_KEY, ModelCard, seal, unseal
from sightline.errors import ContractError
from sightline.repository.card_config import card_in, config_for, contradictions
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
from sightline.repository.config_text import config_text, differing_settings, parse_config
from sightline.repository.instances import InstanceSettings, instances_of
from support.digits import DIGITS, Trained

SMALL = InstanceSettings(instances=1, threads=1)


def card_of(text: str, where: str = "config.pbtxt") -> ModelCard:
    return card_in(parse_config(text, where), where)


def parsed(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_the_config_says_what_the_onnx_file_says(trained: Trained) -> None:
    config, graph = parsed(config_text(config_for(trained.card, SMALL))), onnx.load_from_string(trained.model).graph
    types: dict[int, str] = {onnx.TensorProto.UINT8: "TYPE_UINT8", onnx.TensorProto.FLOAT: "TYPE_FP32"}
    for mine, theirs in ((config.input, graph.input), (config.output, graph.output)):
        assert [item.name for item in mine] == [item.name for item in theirs]
        for configured, declared in zip(mine, theirs, strict=True):
            tensor = declared.type.tensor_type
            assert model_config_pb2.DataType.Name(configured.data_type) == types[tensor.elem_type]
            assert list(configured.dims) == [dim.dim_value for dim in tensor.shape.dim[1:]]
            assert tensor.shape.dim[0].dim_param


def test_the_whole_config_of_a_small_model() -> None:
    text = config_text(config_for(DIGITS, SMALL))
    sealed = seal(DIGITS).replace('"', r"\"").replace("×", r"\303\227")
    assert text == (
        'name: "digits"\n'
        "version_policy {\n  latest {\n    num_versions: 1\n  }\n}\n"
        "max_batch_size: 16\n"
        'input {\n  name: "pixels"\n  data_type: TYPE_UINT8\n  dims: 8\n  dims: 8\n  dims: 1\n}\n'
        'output {\n  name: "probabilities"\n  data_type: TYPE_FP32\n  dims: 10\n  label_filename: "labels.txt"\n}\n'
        "instance_group {\n  count: 1\n}\n"
        'default_model_filename: "model.onnx"\n'
        "dynamic_batching {\n}\n"
        'parameters {\n  key: "enable_mem_arena"\n  value {\n    string_value: "0"\n  }\n}\n'
        'parameters {\n  key: "inter_op_thread_count"\n  value {\n    string_value: "1"\n  }\n}\n'
        'parameters {\n  key: "intra_op_thread_count"\n  value {\n    string_value: "1"\n  }\n}\n'
        'parameters {\n  key: "model_card"\n  value {\n    string_value: "' + sealed + '"\n  }\n}\n'
        'backend: "onnxruntime"\n'
    )


@pytest.mark.parametrize("sizes", [(1, 16), (1,)])
def test_a_model_is_warmed_up_with_batches_of_the_golden_image(sizes: tuple[int, ...]) -> None:
    config = parsed(config_text(config_for(DIGITS, SMALL, sizes)))
    assert [sample.batch_size for sample in config.model_warmup] == list(sizes)
    for sample in config.model_warmup:
        assert {name: (list(tensor.dims), tensor.input_data_file) for name, tensor in sample.inputs.items()} == {
            "pixels": ([8, 8, 1], "golden")
        }


@pytest.mark.parametrize(
    "settings",
    [
        InstanceSettings(1, 1),
        InstanceSettings(4, 0, 250),
        InstanceSettings(2, 3, None),
        InstanceSettings(2, 1, 0, 8),
        InstanceSettings(3, 1, None, 1, 0),
    ],
)
def test_instance_settings_are_read_as_it_was_written(settings: InstanceSettings) -> None:
    config = parsed(config_text(config_for(DIGITS, settings)))
    assert instances_of(parse_config(config_text(config_for(DIGITS, settings)), "config.pbtxt")) == settings
    assert config.HasField("dynamic_batching") == (settings.queue_delay_us is not None)


def test_the_instance_kind_is_auto_so_that_a_gpu_is_used_where_there_is_one() -> None:
    config = parsed(config_text(config_for(DIGITS, SMALL)))
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_AUTO


@pytest.mark.parametrize("settings", [InstanceSettings(1, 1), InstanceSettings(2, 1), InstanceSettings(1, 0)])
def test_instances_and_threads_are_written_as_the_backends_read_them(settings: InstanceSettings) -> None:
    config = parsed(config_text(config_for(DIGITS, settings)))
    assert sum(group.count for group in config.instance_group) == settings.instances
    assert config.parameters["intra_op_thread_count"].string_value == str(settings.threads)


def test_of_several_instances_the_first_is_asked_before_all_others() -> None:
    groups = parsed(config_text(config_for(DIGITS, InstanceSettings(4, 1)))).instance_group
    assert [(group.name, group.count, group.rate_limiter.priority) for group in groups] == [("first", 1, 1), ("more", 3, 1_000_000)]
    (alone,) = parsed(config_text(config_for(DIGITS, SMALL))).instance_group
    assert (alone.name, alone.HasField("rate_limiter")) == ("", False)


def test_a_model_for_single_images_has_no_dynamic_batching() -> None:
    card = DIGITS.model_copy(update={"max_batch_size": 1})
    assert not parsed(config_text(config_for(card, SMALL))).HasField("dynamic_batching")
    assert parsed(config_text(config_for(DIGITS, SMALL))).HasField("dynamic_batching")


HOSTILE = [
    'quotes " and \' and """ and \\" and \\',
    "lines\nand\n\nlines\ttabs",
    '}\nparameters { key: "evil" value: { string_value: "x" } }\n{',
    "# no comment; <html> & %s {0} $(date) `date`",
    "Ziffern äöü ß 數字 ٣ 🔢 \u202e right to left \ufeff",
    "separators \u2028\u2029 and marks \u0301\u200d\ufffd\uffff",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_descriptions_come_back_as_they_were(text: str) -> None:
    card = ModelCard.model_validate({**DIGITS.model_dump(), "description": text})
    written = config_text(config_for(card, SMALL))
    assert written.isascii()
    assert set(parsed(written).parameters) == {CARD_KEY, "enable_mem_arena", "intra_op_thread_count", "inter_op_thread_count"}
    assert card_of(written) == card
    assert unseal(parsed(written).parameters[CARD_KEY].string_value, "config.pbtxt").description == text


def test_hostile_labels_come_back_as_they_were() -> None:
    labels = ('"', "'", "\\", "\\n", "}", 'name: "x"', "ä", "數字", "🔢", "a b", "<b>", "{0}", "%s", "#")
    card = ModelCard.model_validate({**DIGITS.model_dump(), "labels": labels})
    assert card_of(config_text(config_for(card, SMALL))).labels == labels


def test_the_text_is_the_same_every_time() -> None:
    assert config_text(config_for(DIGITS, SMALL)) == config_text(config_for(ModelCard.model_validate(DIGITS.model_dump()), SMALL))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "TYPE_UINT8",
            "TYPE_FP32",
            "its input is [('pixels', 'TYPE_FP32', [8, 8, 1])], the card says [('pixels', 'TYPE_UINT8', [8, 8, 1])]",
        ),
        ("max_batch_size: 16", "max_batch_size: 8", "its max_batch_size is 8, the card says 16"),
        ('name: "digits"', 'name: "letters"', "its name is letters, the card says digits"),
        ('name: "probabilities"', 'name: "p"', "its output is [('p', 'TYPE_FP32', [10], 'labels.txt')]"),
        ("dims: 10", "dims: 11", "its output is [('probabilities', 'TYPE_FP32', [11], 'labels.txt')]"),
        ('backend: "onnxruntime"', 'backend: "python"', "its backend is python, the card says onnxruntime"),
    ],
)
def test_a_config_that_contradicts_its_card_is_refused(old: str, new: str, sentence: str) -> None:
    text = config_text(config_for(DIGITS, SMALL))
    assert old in text
    with pytest.raises(ContractError) as refused:
        card_of(text.replace(old, new, 1), "config.pbtxt of model digits")
    assert str(refused.value).startswith("config.pbtxt of model digits contradicts the model card in it: ")
    assert sentence in str(refused.value)
    assert str(refused.value).endswith(". Restore the file that was published")


def test_one_changed_digit_of_a_mean_is_refused() -> None:
    with pytest.raises(ContractError, match=r"config\.pbtxt: no valid model card: it was changed after it was written"):
        card_of(config_text(config_for(DIGITS, SMALL)).replace("[0.3]", "[0.4]"))


def test_a_config_without_a_card_is_refused() -> None:
    with pytest.raises(
        ContractError, match=r"^config\.pbtxt: it holds no model card \(parameters\['model_card'\]\)\. Restore the file that was published$"
    ):
        card_of('name: "digits"')


@pytest.mark.parametrize("text", ["name: ", "no config", "name: 3", '{"name": "digits"}', "\x00"])
def test_what_is_no_config_is_refused_with_the_place(text: str) -> None:
    with pytest.raises(ContractError, match=r"^config\.pbtxt: no model configuration: \d+:\d+ : "):
        parse_config(text, "config.pbtxt")


def test_settings_that_change_no_answer_are_the_owners_business() -> None:
    text = (
        config_text(config_for(DIGITS, SMALL)).replace("count: 1", "count: 4")
        + "response_cache { enable: true }\na_field_of_a_later_triton: 1\n"
    )
    published = parse_config(text, "config.pbtxt")
    assert contradictions(published, DIGITS) == []
    assert differing_settings(published, config_for(DIGITS, SMALL)) == ["instance_group", "response_cache"]
    assert "a_field_of_a_later_triton" in published.unknown_settings


def test_a_changed_value_is_written_and_settings_that_are_no_field_of_it_are_kept() -> None:
    text = config_text(config_for(DIGITS, SMALL)).replace("count: 1", 'count: 1\n  name: "group"\n  host_policy: "near"')
    text += "response_cache { enable: true }\n"
    read = parse_config(text, "config.pbtxt")
    changed = parsed(config_text(replace(read, policy=VersionPolicy("specific", versions=(3,)))))
    assert list(changed.version_policy.specific.versions) == [3]
    assert changed.response_cache.enable
    assert (changed.instance_group[0].name, changed.instance_group[0].host_policy) == ("group", "near")
    assert parsed(config_text(read)) == parsed(text)


def test_every_setting_comes_back_as_it_was_written() -> None:
    config = ModelConfig(
        name="all",
        backend="b",
        default_file="f",
        max_batch_size=4,
        inputs=(Tensor("i", "TYPE_UINT8", (2, -1)),),
        outputs=(Tensor("o", "TYPE_FP32", (3,), "labels.txt"), Tensor("p", "TYPE_STRING", (1,))),
        policy=VersionPolicy("all"),
        instance_groups=(InstanceGroup("KIND_GPU", 2, (0, 3)), InstanceGroup("KIND_CPU", 1, (), "more", 5)),
        queue_delay_us=250,
        warm_ups=(WarmUp("w", 2, (WarmUpTensor("i", "TYPE_UINT8", (2, 2)), WarmUpTensor("j", "TYPE_FP32", (1,), "file"))),),
        gpu_accelerators=(Accelerator("tensorrt", (("a", "1"), ("b", "2"))),),
        plan_files={"9.0": "model.sm90.plan"},
        parameters={"k": 'quotes " and\nlines'},
    )
    assert parse_config(config_text(config), "config.pbtxt") == config
    ensemble = ModelConfig(name="all", platform="ensemble", steps=(EnsembleStep("m", -1, (("i", "i"),), (("o", "o"),)),))
    assert parse_config(config_text(ensemble), "config.pbtxt") == ensemble
    read = parse_config(config_text(config), "config.pbtxt")
    plain = replace(read, gpu_accelerators=(), plan_files={}, parameters={}, queue_delay_us=None, warm_ups=())
    assert parse_config(config_text(plain), "config.pbtxt") == plain


def test_which_versions_are_served_follows_tritons_rules() -> None:
    numbers = (1, 2, 5, 9)
    assert VersionPolicy().served(numbers) == (9,)
    assert VersionPolicy("latest", 2).served(numbers) == (5, 9)
    assert VersionPolicy("all").served(numbers) == numbers
    assert VersionPolicy("specific", versions=(5, 1, 7)).served(numbers) == (1, 5)
    assert VersionPolicy("latest", 3).served(()) == ()


def test_a_pinned_version_is_read() -> None:
    text = config_text(config_for(DIGITS, SMALL))
    pinned = text.replace("latest {\n    num_versions: 1\n  }", "specific { versions: 2 versions: 5 }")
    assert parse_config(pinned, "config.pbtxt").policy == VersionPolicy("specific", versions=(2, 5))
    assert parse_config(text, "config.pbtxt").policy == VersionPolicy("latest", 1)
