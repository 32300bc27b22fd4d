"""Rounded weights are read back out of the ONNX model and set beside the old ones."""

import numpy as np
import pytest

from vae.use.quantise import quantise

onnx = pytest.importorskip("onnx", reason="comes with the extra export")
pytest.importorskip("onnx.reference")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

LAYERS = {  # the shape of a weight, its inputs', and the axis of its outputs
    "MatMul": ((80, 60), (3, 80), 1),
    "Gemm": ((80, 60), (3, 80), 1),
    "Gemm transposed": ((60, 80), (3, 80), 0),
    "Conv": ((40, 16, 3, 3), (2, 16, 5, 6), 0),
    "ConvTranspose": ((16, 40, 3, 3), (2, 16, 5, 6), 1),
}


def layer(name, weight, inputs):
    kind, _, transposed = name.partition(" ")
    attributes = {"transB": 1} if transposed else {}
    node = helper.make_node(kind, ["x", "w"], ["y"], **attributes)
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, inputs)
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None] * len(inputs))
    graph = helper.make_graph([node], "layer", [x], [y], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])


def evaluated(model, x):
    return onnx.reference.ReferenceEvaluator(model).run(None, {"x": x})[0]


@pytest.mark.parametrize("name", LAYERS)
def test_each_output_has_a_scale_of_its_own(name):
    shape, inputs, axis = LAYERS[name]
    generator = np.random.default_rng(0)
    sizes = np.geomspace(1e-3, 1e3, shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    weight = (generator.standard_normal(shape) * sizes).astype(np.float32)
    np.moveaxis(weight, axis, 0)[0] = 0  # an output that has died
    x = generator.standard_normal(inputs).astype(np.float32)
    model = layer(name, weight, inputs)
    before = evaluated(model, x)
    quantise(model)
    onnx.checker.check_model(model, full_check=True)
    stored = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    assert {each: values.dtype for each, values in stored.items()} == {"w.int8": np.int8, "w.scale": np.float32}
    rounded = stored["w.int8"] * stored["w.scale"].reshape(sizes.shape)
    others = tuple(i for i in range(len(shape)) if i != axis)
    assert (abs(rounded - weight).max(others) <= abs(weight).max(others) / 254 * 1.001).all()
    assert np.allclose(evaluated(model, x), evaluated(layer(name, rounded, inputs), x), rtol=1e-4)
    assert not np.allclose(evaluated(model, x), before, rtol=1e-4)


def test_small_weights_and_biases_stay():
    model = layer("MatMul", np.ones((8, 6), np.float32), (3, 8))
    before = model.SerializeToString()
    quantise(model)
    assert model.SerializeToString() == before
