"""Weights of an ONNX program in 8 bits, after training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

SMALL = 4096  # numbers: smaller weights, such as those next to the latents, save little and matter most


def quantise(model: ModelProto) -> None:
    """Round the weights w of dense and convolutional layers to s ⊙ {−127, …, 127} with one s for each output, in place.

    The file holds 8 bits a weight; whoever runs it multiplies by s, and computes in 32 bits as before.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    for node in list(graph.node):
        axis = _output_axis(node)
        weight = None if axis is None else weights.pop(node.input[1], None)
        if axis is None or weight is None or np.prod(weight.dims) < SMALL:
            continue
        values = numpy_helper.to_array(weight)
        scale = np.abs(values).max(tuple(i for i in range(values.ndim) if i != axis), keepdims=True) / 127
        scale[scale == 0] = 1
        graph.initializer.remove(weight)
        rounded, scales = f"{weight.name}.int8", f"{weight.name}.scale"
        graph.initializer.append(numpy_helper.from_array(np.rint(values / scale).astype(np.int8), rounded))
        graph.initializer.append(numpy_helper.from_array(scale.flatten(), scales))
        graph.node.insert(0, helper.make_node("DequantizeLinear", [rounded, scales], [weight.name], axis=axis))


def _output_axis(node: NodeProto) -> int | None:
    """Which axis of a layer's weight counts its outputs; None for nodes that are no layers."""
    if node.op_type == "Gemm":
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        return 0 if transposed else 1
    return {"MatMul": 1, "Conv": 0, "ConvTranspose": 1}.get(node.op_type)
