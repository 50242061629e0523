# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Convert ONNX models to opsets that PyTorch's exporter does not write.

The exporter writes opset 18 and newer. Between 11 and 17 few operators have
another form; :data:`REWRITES` lists them. All others must be valid in the
older opset, or an error names the operator.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np

WRITTEN_OPSET = 18  # the oldest one that PyTorch's exporter writes
OLDEST_OPSET = 11
INTEGERS = ('INT8', 'INT16', 'INT32', 'INT64', 'UINT8')


class Graph:
    """A graph during its conversion.

    Args:
        proto: ONNX's ``GraphProto``.
        opset: Opset to convert it to.

    Attributes:
        constants: Known values of tensors, by name.
        shapes: Element type and size of each dimension (``None`` if open) of
            the known tensors, by name.
    """

    def __init__(self, proto: Any, opset: int):
        from onnx import numpy_helper
        self.proto, self.opset, self.numbers = proto, opset, count()
        self.constants: dict[str, np.ndarray] = {
            t.name: numpy_helper.to_array(t)
            for t in proto.initializer if len(t.dims) < 2}
        for node in proto.node:
            if node.op_type == 'Constant' and node.attribute[0].HasField('t'):
                self.constants[node.output[0]] = numpy_helper.to_array(
                    node.attribute[0].t)
        self.shapes: dict[str, tuple[int, list[int | None] | None]] = {}
        for value in (*proto.input, *proto.output, *proto.value_info):
            kind = value.type.tensor_type
            sizes = [d.dim_value if d.HasField('dim_value') else None
                     for d in kind.shape.dim]
            self.shapes[value.name] = kind.elem_type, (
                sizes if kind.HasField('shape') else None)
        for t in proto.initializer:
            self.shapes[t.name] = t.data_type, list(t.dims)

    def name(self) -> str:
        """Return an unused tensor name."""
        return f'opset{self.opset}_{next(self.numbers)}'

    def constant(self, value: Any, dtype: Any) -> str:
        """Add a constant; return its name."""
        from onnx import numpy_helper
        name = self.name()
        self.constants[name] = np.asarray(value, dtype)
        self.proto.initializer.append(
            numpy_helper.from_array(self.constants[name], name))
        return name

    def rank(self, node: Any) -> int:
        """Return the number of dimensions of the first input of a node."""
        sizes = self.shapes.get(node.input[0], (0, None))[1]
        if sizes is None:
            raise refusal(self.opset, node, 'on a tensor of unknown rank')
        return len(sizes)


Rewrite = Callable[[Graph, Any], Sequence[Any]]


def refusal(opset: int, node: Any, why: str) -> ValueError:
    return ValueError(f'opset {opset} has no {node.op_type} {why}: export '
                      f'with --opset {WRITTEN_OPSET} or higher')


def attributes_of(node: Any) -> dict[str, Any]:
    from onnx import helper
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def make(kind: str, inputs: Sequence[str], outputs: Sequence[str],
         **attributes: Any) -> Any:
    from onnx import helper
    return helper.make_node(kind, list(inputs), list(outputs), **attributes)


def copy(node: Any, inputs: Sequence[str] | None = None,
         **changed: Any) -> Any:
    """Copy a node with other inputs or attributes; ``None`` drops one."""
    attributes = {**attributes_of(node), **changed}
    return make(node.op_type, node.input if inputs is None else inputs,
                node.output, **{
                    k: v for k, v in attributes.items() if v is not None})


def constant_input(graph: Graph, node: Any, what: str) -> Any:
    """Return the second input, which an older opset has as an attribute."""
    value = graph.constants.get(node.input[1])
    if value is None:
        raise refusal(graph.opset, node, f'with {what} that are computed')
    return value.tolist()


def axes_as_attribute(graph: Graph, node: Any) -> Sequence[Any]:
    """Convert axes to an attribute: before 18, for Squeeze etc. before 13."""
    if len(node.input) < 2 or not node.input[1]:
        return [copy(node, node.input[:1])]
    return [copy(node, node.input[:1], noop_with_empty_axes=None,
                 axes=constant_input(graph, node, 'axes'))]


def sizes_of_split(graph: Graph, node: Any) -> Sequence[Any]:
    """Convert Split by the number of parts (since 18) to their sizes."""
    attributes = attributes_of(node)
    parts = attributes.get('num_outputs')
    sizes = graph.shapes.get(node.input[0], (0, None))[1]
    whole = sizes[attributes.get('axis', 0)] if sizes else None
    if not parts or not whole or whole % parts == 0:
        return [copy(node, num_outputs=None)]
    part = -(-whole // parts)
    chunks = [part] * (parts - 1) + [whole - part * (parts - 1)]
    return [copy(node, [node.input[0], graph.constant(chunks, 'i8')],
                 num_outputs=None)]


def split_as_attribute(graph: Graph, node: Any) -> Sequence[Any]:
    """Convert the sizes of Split from input (since 13) to attribute."""
    if len(node.input) < 2 or not node.input[1]:
        return [copy(node, node.input[:1])]
    return [copy(node, node.input[:1],
                 split=constant_input(graph, node, 'sizes'))]


def layer_norm(graph: Graph, node: Any) -> Sequence[Any]:
    """Decompose LayerNormalization (since 17), in float32 as there."""
    from onnx import TensorProto
    attributes, (x, scale, *bias) = attributes_of(node), node.input
    if len([name for name in node.output if name]) > 1:
        raise refusal(graph.opset, node, 'with mean and deviation as outputs')
    axes = list(range(attributes.get('axis', -1), 0))
    if not axes:  # count them from the front
        axes = list(range(attributes['axis'], graph.rank(node)))
    kind = graph.shapes.get(x, (TensorProto.FLOAT, None))[0]
    cast = kind != TensorProto.FLOAT and attributes.get('stash_type', 1)
    wide, mean, apart, square, var, safe, std, normal, back, scaled = (
        graph.name() for _ in range(10))
    epsilon = graph.constant(
        attributes.get('epsilon', 1e-5), 'f4' if cast or
        kind == TensorProto.FLOAT else 'f2')
    nodes = [
        make('Cast', [x], [wide], to=TensorProto.FLOAT) if cast else None,
        make('ReduceMean', [wide if cast else x], [mean], axes=axes),
        make('Sub', [wide if cast else x, mean], [apart]),
        make('Mul', [apart, apart], [square]),
        make('ReduceMean', [square], [var], axes=axes),
        make('Add', [var, epsilon], [safe]),
        make('Sqrt', [safe], [std]),
        make('Div', [apart, std], [normal]),
        make('Cast', [normal], [back], to=kind) if cast else None,
        make('Mul', [back if cast else normal, scale],
             [scaled if bias else node.output[0]]),
        make('Add', [scaled, *bias], node.output[:1]) if bias else None,
    ]  # yapf: disable
    return [n for n in nodes if n is not None]


def slice_of_shape(graph: Graph, node: Any) -> Sequence[Any]:
    """Convert Shape of a range of dimensions (since 15) to Shape and Slice."""
    attributes = attributes_of(node)
    start, end = attributes.get('start', 0), attributes.get('end')
    if start == 0 and end is None:
        return [copy(node, start=None)]
    shape = graph.name()
    bounds = [graph.constant([i], 'i8')
              for i in (start, np.iinfo('i8').max if end is None else end)]
    return [make('Shape', node.input, [shape]),
            make('Slice', [shape, *bounds], node.output)]


def keep_full_shapes(graph: Graph, node: Any) -> Sequence[Any]:
    """Convert Reshape: before 14, a size of 0 copies that of the input.

    With computed sizes, only empty tensors have a size of 0.
    """
    if 0 in graph.constants.get(node.input[1], ()):
        return [node]
    return [copy(node, allowzero=None)]


def softmax_of_last(graph: Graph, node: Any) -> Sequence[Any]:
    """Convert Softmax: before 13, it covers an axis and all that follow it."""
    rank = graph.rank(node)
    axis = attributes_of(node).get('axis', -1) % rank
    if axis == rank - 1:
        return [copy(node, axis=axis)]
    order = [*range(rank)]
    order[axis], order[-1] = order[-1], order[axis]
    before, after = graph.name(), graph.name()
    return [make('Transpose', node.input, [before], perm=order),
            make(node.op_type, [before], [after], axis=rank - 1),
            make('Transpose', [after], node.output, perm=order)]


def empty_inputs(graph: Graph, node: Any) -> Sequence[Any]:
    """Convert Resize: before 13, optional inputs are empty tensors."""
    inputs = [*node.input, '', ''][:max(3, len(node.input))]
    return [copy(node, [
        name or graph.constant([], 'f4') for name in inputs])]


def compute_in_float(graph: Graph, node: Any) -> Sequence[Any]:
    """Convert Clip, Max and Min of integers (since 12); exact below 2**24."""
    from onnx import TensorProto
    kind = graph.shapes.get(node.input[0], (TensorProto.FLOAT, None))[0]
    if TensorProto.DataType.Name(kind) not in INTEGERS:
        return [node]
    inputs = [name and graph.name() for name in node.input]
    found = graph.name()
    casts = [make('Cast', [old], [new], to=TensorProto.FLOAT)
             for old, new in zip(node.input, inputs) if old]
    return [*casts, make(node.op_type, inputs, [found]),
            make('Cast', [found], node.output, to=kind)]


# The conversions for opsets below a number, from the newest to the oldest.
REWRITES: dict[str, Sequence[tuple[int, Rewrite]]] = {
    **{f'Reduce{name}': ((18, axes_as_attribute), ) for name in (
        'L1', 'L2', 'LogSum', 'LogSumExp', 'Max', 'Mean', 'Min', 'Prod',
        'SumSquare')},
    'ReduceSum': ((13, axes_as_attribute), ),
    'Squeeze': ((13, axes_as_attribute), ),
    'Unsqueeze': ((13, axes_as_attribute), ),
    'Split': ((18, sizes_of_split), (13, split_as_attribute)),
    'LayerNormalization': ((17, layer_norm), ),
    'Shape': ((15, slice_of_shape), ),
    'Reshape': ((14, keep_full_shapes), ),
    'Softmax': ((13, softmax_of_last), ),
    'LogSoftmax': ((13, softmax_of_last), ),
    'Resize': ((13, empty_inputs), ),
    'Clip': ((12, compute_in_float), ),
    'Max': ((12, compute_in_float), ),
    'Min': ((12, compute_in_float), ),
}  # yapf: disable


def rewrite(graph: Graph, node: Any) -> Sequence[Any]:
    """Return the nodes that replace a node."""
    found = [node]
    for below, function in REWRITES.get(node.op_type, ()):
        if graph.opset < below and len(found) == 1:
            found = list(function(graph, found[0]))
    return [fit(graph, n) for n in found]


def fit(graph: Graph, node: Any) -> Any:
    """Drop attributes that the older opset lacks, if they have their defaults.

    Raises:
        ValueError: If the older opset lacks the operator or a feature of it.
    """
    from onnx import defs, helper
    try:
        old = defs.get_schema(node.op_type, graph.opset, node.domain)
    except defs.SchemaError:
        raise refusal(graph.opset, node, 'at all') from None
    new = defs.get_schema(node.op_type, WRITTEN_OPSET, node.domain)
    if len(node.input) > old.max_input:
        name = new.inputs[old.max_input].name
        raise refusal(graph.opset, node, f'with the input {name}')
    for attribute in list(node.attribute):
        if attribute.name in old.attributes:
            continue
        default = new.attributes[attribute.name].default_value
        value = helper.get_attribute_value(attribute)
        if not default.name or value != helper.get_attribute_value(default):
            raise refusal(graph.opset, node,
                          f'with {attribute.name}={value!r}')
        node.attribute.remove(attribute)
    node.ClearField('metadata_props')  # field of newer files
    return node


def lower(model: Any, opset: int) -> Any:
    """Convert a model of opset 18 to an older one, in place.

    Args:
        model: ONNX's ``ModelProto``.
        opset: Opset to convert to, 11 to 17.

    Returns:
        The model.

    Raises:
        ValueError: If the older opset cannot express it; names the operator.
    """
    from onnx import checker, helper
    graph = Graph(model.graph, opset)
    nodes = [n for node in model.graph.node for n in rewrite(graph, node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for version in model.opset_import:
        if version.domain == '':
            version.version = opset
    model.ir_version = helper.find_min_ir_version_for(model.opset_import)
    try:
        checker.check_model(model, full_check=True)
    except Exception as error:  # ONNX raises several types
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f'opset {opset} cannot hold this graph ({reason}): '
                         f'export with --opset {WRITTEN_OPSET} or '
                         'higher') from error
    return model
