"""What TensorRT's engine inspector writes, as short texts in its three known forms.

None was recorded by us. The forms, kinds of layers, names of types and tactics are those of public outputs: a ResNet of NVIDIA's
trt-engine-explorer (TensorRT 8 and 9), and the fused layers in NVIDIA/TensorRT issue 4397 (TensorRT 10).
"""

import json
from typing import Any


def old(*kinds: str, tactic: str = "sm80_xmma_fprop_implicit_gemm", parameter: str = "Convolution") -> str:
    """A reformat and then a convolution of each of the `kinds` (FP32, FP16, Int8), as TensorRT 8 and 9 write it."""
    words = {"FP32": "Float", "FP16": "Half", "Int8": "Int8"}
    listed: list[dict[str, Any]] = [
        {
            "Name": "Reformatting CopyNode for Input Tensor 0 to Conv_0 + Relu_1",
            "LayerType": "Reformat",
            "Inputs": [
                {"Name": "input.1", "Location": "Device", "Dimensions": [32, 3, 224, 224], "Format/Datatype": "Row major linear FP32"}
            ],
            "ParameterType": "Reformat",
            "Origin": "REFORMAT",
            "TacticValue": "0x0000000000000000",
        }
    ]
    listed += [
        {
            "Name": f"Conv_{at} + Relu_{at + 1}",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": f"onnx::Conv_{at}", "Format/Datatype": f"Channel major {kind} format where channel % 8 == 0"}],
            "Outputs": [{"Name": f"onnx::Conv_{at + 2}", "Format/Datatype": f"Channel major {kind} format where channel % 8 == 0"}],
            "ParameterType": parameter,
            "Weights": {"Type": words[kind], "Count": 36864},
            "Bias": {"Type": "Float", "Count": 64},
            "TacticName": tactic,
        }
        for at, kind in enumerate(kinds)
    ]
    return json.dumps({"Layers": listed, "Bindings": ["input.1", "191"]})


def new(*kinds: str, tactic: str = "sm80_xmma_gemm", onnx: str = "/encoder/layers_0/MatMul") -> str:
    """A fused layer that prepares, and then a matrix product of each of the `kinds` (Float, Half, Int8), as TensorRT 10 writes it."""
    listed: list[dict[str, Any]] = [
        {
            "Name": "__myl_CastDivSub_myl0_0",
            "LayerType": "kgen",
            "Inputs": [{"Name": "pixels", "Dimensions": [8, 8, 8, 1], "Format/Datatype": "UInt8"}],
            "Outputs": [{"Name": "__mye1", "Dimensions": [8, 64], "Format/Datatype": "Float"}],
            "TacticName": "__myl_CastDivSub_0xf2543c36ff9f104bbb1655b0183afb47",
            "StreamId": 0,
            "Metadata": "[ONNX Layer: node_Cast_0][ONNX Layer: node_div]",
        }
    ]
    listed += [
        {
            "Name": f"{onnx}_myl0_{at + 1}",
            "LayerType": "gemm",
            "Inputs": [{"Name": f"__mye{at}", "Dimensions": [8, 64], "Format/Datatype": kind}],
            "Outputs": [{"Name": f"__mye{at + 1}", "Dimensions": [8, 48], "Format/Datatype": kind}],
            "TacticName": tactic,
            "StreamId": 0,
            "Metadata": f"[ONNX Layer: {onnx}]",
        }
        for at, kind in enumerate(kinds)
    ]
    return json.dumps({"Layers": listed, "Bindings": ["pixels", "probabilities"]})


def fused(kind: str, onnx: str) -> str:
    """A matrix product that TensorRT 10 generated a kernel for, so that only its metadata tells of it."""
    layer = {
        "Name": "__myl_MulSumAddRelu_myl0_1",
        "LayerType": "kgen",
        "Inputs": [{"Name": "__mye1", "Format/Datatype": kind}],
        "Outputs": [{"Name": "__mye2", "Format/Datatype": kind}],
        "TacticName": "__myl_MulSumAddRelu_0x00",
        "Metadata": f"[ONNX Layer: {onnx}][ONNX Layer: node_relu]",
    }
    return json.dumps({"Layers": [layer]})
