# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""ONNX files of opsets older than PyTorch's exporter writes."""
import numpy as np
import pytest

onnx = pytest.importorskip('onnx')
ort = pytest.importorskip('onnxruntime')

from onnx import TensorProto, checker, helper, numpy_helper  # noqa: E402

from hrformer_mm.deploy.opsets import (  # noqa: E402
    OLDEST_OPSET,
    REWRITES,
    WRITTEN_OPSET,
    lower,
)

OLD = range(OLDEST_OPSET, WRITTEN_OPSET)
SHAPE = (2, 3, 4, 6)


def node(kind, *constants, outputs=1, **attributes):
    return kind, constants, outputs, attributes


# Each takes the float tensor x of SHAPE, then constants.
CASES = dict(
    layer_norm=node('LayerNormalization', np.arange(6, dtype='f4'),
                    np.ones(6, 'f4'), axis=-1, epsilon=.1),
    layer_norm_without_bias=node(
        'LayerNormalization', np.full((4, 6), 2, 'f4'), axis=2),
    equal_split=node('Split', outputs=3, axis=1, num_outputs=3),
    unequal_split=node('Split', outputs=4, axis=-1, num_outputs=4),
    split_by_sizes=node('Split', np.array([1, 5]), outputs=2, axis=3),
    reduce_max=node('ReduceMax', np.array([2, 3]), keepdims=0),
    reduce_all=node('ReduceMean', keepdims=1),
    reduce_sum=node('ReduceSum', np.array([1]), keepdims=1),
    unsqueeze=node('Unsqueeze', np.array([0, 5])),
    shape=node('Shape'),
    part_of_shape=node('Shape', start=1, end=-1),
    rest_of_shape=node('Shape', start=-1),
    softmax_of_last=node('Softmax', axis=-1),
    softmax_of_channels=node('Softmax', axis=1),
    log_softmax=node('LogSoftmax', axis=-2),
    reshape=node('Reshape', np.array([2, -1]), allowzero=1),
    resize=node('Resize', '', '', np.array([2, 3, 7, 9]), mode='linear',
                coordinate_transformation_mode='align_corners', antialias=0),
    resize_by_scale=node('Resize', '', np.array([1, 1, 2, 2], 'f4'),
                         mode='nearest', nearest_mode='floor',
                         coordinate_transformation_mode='asymmetric'),
    clip=node('Clip', np.float32(-.5), np.float32(.5)),
    arg_max=node('ArgMax', axis=2, keepdims=0, select_last_index=0),
    pad=node('Pad', np.array([0, 0, 1, 2, 0, 0, 3, 0])),
)  # yapf: disable


def build(kind, constants, outputs, attributes, element=TensorProto.FLOAT):
    """A model of one node at the oldest opset of PyTorch's exporter."""
    names = ['x', *('' if isinstance(c, str) else f'c{i}'
                    for i, c in enumerate(constants))]
    made = helper.make_node(
        kind, names, [f'y{i}' for i in range(outputs)], **attributes)
    known = [numpy_helper.from_array(np.asarray(c), f'c{i}')
             for i, c in enumerate(constants) if not isinstance(c, str)]
    graph = helper.make_graph(
        [made], 'g', [helper.make_tensor_value_info('x', element, SHAPE)],
        [helper.make_empty_tensor_value_info(name) for name in made.output],
        known)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid('', WRITTEN_OPSET)],
        ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def run(model, x):
    return ort.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']).run(
            None, dict(x=x))


def assert_equal_in_old_opsets(model, x, rtol=2e-6):
    wanted = run(model, x)
    for opset in OLD:
        old = lower(onnx.load_from_string(model.SerializeToString()), opset)
        checker.check_model(old, full_check=True)
        assert old.opset_import[0].version == opset and old.ir_version <= 8
        for a, b in zip(run(old, x), wanted):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=2e-6)
            assert a.dtype == b.dtype and a.shape == b.shape


@pytest.mark.parametrize('name', CASES)
def test_operators_compute_the_same_in_older_opsets(name):
    x = np.random.default_rng(0).standard_normal(SHAPE).astype('f4')
    assert_equal_in_old_opsets(build(*CASES[name]), x)


@pytest.mark.parametrize('name', ['layer_norm', 'layer_norm_without_bias'])
def test_norms_of_half_precision_are_computed_in_float32(name):
    kind, constants, outputs, attributes = CASES[name]
    model = build(kind, [c.astype('f2') for c in constants], outputs,
                  attributes, TensorProto.FLOAT16)
    x = np.random.default_rng(0).standard_normal(SHAPE) * 3e2
    # Squares of these are above the largest number of float16.
    assert_equal_in_old_opsets(model, x.astype('f2'), rtol=2e-3)


@pytest.mark.parametrize('kind', ['Clip', 'Max', 'Min'])
def test_integers_are_compared_in_the_oldest_opsets(kind):
    bounds = [np.int64(3), np.int64(40)][:2 if kind == 'Clip' else 1]
    x = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    assert_equal_in_old_opsets(
        build(*node(kind, *bounds), element=TensorProto.INT64), x)


def test_axes_that_are_squeezed_are_attributes_of_older_opsets():
    model = build(*node('ReduceSum', np.array([1, 2]), keepdims=1))
    squeeze = helper.make_node('Squeeze', ['y0', 'c0'], ['z'])
    model.graph.node.append(squeeze)
    del model.graph.output[:]
    model.graph.output.append(helper.make_empty_tensor_value_info('z'))
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    assert_equal_in_old_opsets(model, np.ones(SHAPE, 'f4'))


@pytest.mark.parametrize('opset, case, words', [
    (17, node('Pad', np.array([1, 1]), np.float32(0), np.array([2])),
     'opset 17 has no Pad with the input axes: .* --opset 18'),
    (16, node('Resize', '', np.array([1, 1, .5, .5], 'f4'), mode='linear',
              antialias=1), 'opset 16 has no Resize with antialias=1'),
    (13, node('Reshape', np.array([0, 72]), allowzero=1), 'allowzero=1'),
    (17, node('BitwiseNot'), 'opset 17 has no BitwiseNot at all'),
    (12, node('HardSwish'), 'opset 12 has no HardSwish at all'),
    (11, node('ArgMax', axis=1, select_last_index=1), 'select_last_index=1'),
], ids=['axes', 'antialias', 'empty', 'bits', 'swish', 'last'])
def test_operators_that_an_opset_lacks_are_reported(opset, case, words):
    element = (TensorProto.INT32 if case[0] == 'BitwiseNot'
               else TensorProto.FLOAT)
    model = build(*case, element=element)
    with pytest.raises(ValueError, match=words):
        lower(model, opset)


def test_every_rewritten_operator_is_tested():
    tested = {case[0] for case in CASES.values()} | {'Max', 'Min', 'Squeeze'}
    assert {name for name in REWRITES if name[:6] != 'Reduce'} <= tested
