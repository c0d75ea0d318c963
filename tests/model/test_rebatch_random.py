"""Random chains of operators: whatever is re-batched must give what single samples give."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from nvaudit.model.batch.rebatch import rebatch
from nvaudit.rng import stream

CHAINS = 1000
SAMPLES = 4


class Chain:
    """A model that grows one random operator at a time; shapes are those of one batch."""

    def __init__(self, rng, batch):
        self.rng = rng
        self.nodes, self.constants = [], []
        rank = int(rng.integers(2, 5))
        self.start = [batch, *(int(rng.choice([1, 2, 3, 4])) for _ in range(rank - 1))]
        self.name, self.shape = "x", list(self.start)

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def floats(self, shape):
        return self.constant(self.rng.standard_normal(shape).astype(np.float32))

    def node(self, op, others, shape, **attributes):
        """Append an operator on the current value (which is where others say 'x')."""
        out = f"v{len(self.nodes)}"
        inputs = [self.name if other == "x" else other for other in others]
        self.nodes.append(helper.make_node(op, inputs, [out], **attributes))
        return out, list(shape)

    def axis(self):
        return int(self.rng.integers(len(self.shape)))

    def model(self):
        end = [*self.shape]
        graph = helper.make_graph(
            self.nodes,
            "chain",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.start)],
            [helper.make_tensor_value_info(self.name, TensorProto.FLOAT, end)],
            self.constants,
        )
        return ir.from_proto(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        )


def unary(c):
    return c.node("Tanh", ["x"], c.shape)


def add_constant(c):
    """A constant of the same or a lower or higher rank, with ones here and there."""
    shape = [d if c.rng.random() < 0.6 else 1 for d in c.shape]
    shape = [3 if d == 1 and c.rng.random() < 0.15 else d for d in shape]
    shape = shape[int(c.rng.integers(len(shape))) :] if c.rng.random() < 0.7 else [2, *shape]
    return c.node("Add", ["x", c.floats(shape)], np.broadcast_shapes(c.shape, shape))


def add_self_moved(c):
    """The value plus its transpose, where that broadcasts."""
    perm = [int(p) for p in c.rng.permutation(len(c.shape))]
    moved = [c.shape[p] for p in perm]
    shape = np.broadcast_shapes(c.shape, moved)
    name, _ = c.node("Transpose", ["x"], moved, perm=perm)
    return c.node("Add", ["x", name], shape)


def subtract_mean(c):
    axis = c.axis()
    name, _ = c.node("ReduceMean", ["x"], c.shape, axes=[axis])
    return c.node("Sub", ["x", name], c.shape)


def mean(c):
    axis, kept = c.axis(), int(c.rng.integers(2))
    shape = [*c.shape[:axis], *([1] if kept else []), *c.shape[axis + 1 :]]
    return c.node("ReduceMean", ["x"], shape, axes=[axis], keepdims=kept)


def softmax(c):
    return c.node("Softmax", ["x"], c.shape, axis=c.axis() - (len(c.shape) if c.rng.random() < 0.5 else 0))


def transpose(c):
    perm = [int(p) for p in c.rng.permutation(len(c.shape))]
    return c.node("Transpose", ["x"], [c.shape[p] for p in perm], perm=perm)


def flatten(c):
    axis = int(c.rng.integers(len(c.shape) + 1))
    shape = [int(np.prod(c.shape[:axis])), int(np.prod(c.shape[axis:]))]
    return c.node("Flatten", ["x"], shape, axis=axis)


def reshape(c):
    """Merge, split or insert axes, and write the result with 0 and -1 here and there."""
    shape = list(c.shape)
    for _ in range(int(c.rng.integers(1, 3))):
        axis = int(c.rng.integers(len(shape)))
        kind = int(c.rng.integers(3))
        if kind == 0 and len(shape) > 1:
            axis = min(axis, len(shape) - 2)
            shape[axis : axis + 2] = [shape[axis] * shape[axis + 1]]
        elif kind == 1:
            shape.insert(axis, 1)
        elif shape[axis] % 2 == 0:
            shape[axis : axis + 1] = [2, shape[axis] // 2]
    asked = [0 if i < len(c.shape) and d == c.shape[i] and c.rng.random() < 0.3 else d
             for i, d in enumerate(shape)]  # fmt: skip
    if c.rng.random() < 0.5:
        asked[int(c.rng.integers(len(asked)))] = -1
    return c.node("Reshape", ["x", c.constant(np.array(asked))], shape)


def matmul_right(c):
    return c.node("MatMul", ["x", c.floats((c.shape[-1], 3))], [*c.shape[:-1], 3])


def matmul_left(c):
    return c.node("MatMul", [c.floats((2, c.shape[-2])), "x"], [*c.shape[:-2], 2, c.shape[-1]])


def attention(c):
    perm = [*range(len(c.shape) - 2), len(c.shape) - 1, len(c.shape) - 2]
    name, _ = c.node("Transpose", ["x"], [c.shape[p] for p in perm], perm=perm)
    return c.node("MatMul", ["x", name], [*c.shape[:-1], c.shape[-2]])


def gemm(c):
    turned = int(c.rng.integers(2))
    rows, columns = c.shape[::-1] if turned else c.shape  # fails (and is skipped) unless of rank 2
    bias = c.floats((3,) if c.rng.random() < 0.5 else (rows, 3))
    return c.node("Gemm", ["x", c.floats((columns, 3)), bias], [rows, 3], transA=turned)


def concat(c):
    axis = c.axis()
    shape = [*c.shape[:axis], 2 * c.shape[axis], *c.shape[axis + 1 :]]
    other = "x" if c.rng.random() < 0.6 else c.floats(c.shape)
    return c.node("Concat", ["x", other], shape, axis=axis)


def slice_(c):
    axis = c.axis()
    end = 1 if c.rng.random() < 0.7 else 2**62
    cut = [c.constant(np.array([n])) for n in (0, end, axis)]
    size = min(end, c.shape[axis])
    return c.node("Slice", ["x", *cut], [*c.shape[:axis], size, *c.shape[axis + 1 :]])


def gather(c):
    axis = c.axis()
    indices = np.array(0) if c.rng.random() < 0.5 else np.array([[c.shape[axis] - 1, 0]])
    shape = [*c.shape[:axis], *indices.shape, *c.shape[axis + 1 :]]
    return c.node("Gather", ["x", c.constant(indices)], shape, axis=axis)


def pad(c):
    axis, rank = c.axis(), len(c.shape)
    pads = np.zeros(2 * rank, np.int64)
    pads[axis] = 1
    return c.node("Pad", ["x", c.constant(pads)], [d + (i == axis) for i, d in enumerate(c.shape)])


def tile(c):
    repeats = np.ones(len(c.shape), np.int64)
    repeats[c.axis()] = 2
    return c.node(
        "Tile", ["x", c.constant(repeats)], [int(d * r) for d, r in zip(c.shape, repeats, strict=True)]
    )


def expand(c):
    asked = [
        2 if c.rng.random() < 0.2 else 1,
        *(3 if d == 1 and c.rng.random() < 0.3 else 1 for d in c.shape),
    ]
    asked = asked[int(c.rng.integers(2)) :]
    return c.node("Expand", ["x", c.constant(np.array(asked))], np.broadcast_shapes(asked, c.shape))


def unsqueeze(c):
    axis = int(c.rng.integers(len(c.shape) + 1))
    return c.node("Unsqueeze", ["x", c.constant(np.array([axis]))], [*c.shape[:axis], 1, *c.shape[axis:]])


def squeeze(c):
    axis = c.shape.index(1)
    return c.node("Squeeze", ["x", c.constant(np.array([axis]))], [*c.shape[:axis], *c.shape[axis + 1 :]])


def conv(c):
    batch, channels, _, _ = c.shape
    kernel = c.floats((2, channels, 1, 1))
    return c.node("Conv", ["x", kernel], [batch, 2, *c.shape[2:]])


def instance_norm(c):
    channels, _ = c.shape[1:3]  # fails (and is skipped) below rank 3
    scale = c.floats(channels)
    return c.node("InstanceNormalization", ["x", scale, scale], c.shape)


STEPS = [
    unary, add_constant, add_self_moved, subtract_mean, mean, softmax, transpose, flatten, reshape, reshape,
    matmul_right, matmul_left, attention, gemm, concat, slice_, gather, pad, tile, expand, unsqueeze, squeeze,
    conv, instance_norm,
]  # fmt: skip


def grow(index):
    """A random chain; operators that do not fit the current shape are skipped."""
    rng = stream(0, "test-rebatch-random", index)
    chain = Chain(rng, batch=int(rng.choice([1, 1, 1, 2, 3])))
    wanted = int(rng.integers(2, 6))
    while len(chain.nodes) < wanted:
        step = STEPS[int(rng.integers(len(STEPS)))]
        nodes, constants = len(chain.nodes), len(chain.constants)
        try:
            name, shape = step(chain)
        except (ValueError, IndexError):
            shape = []
        if not shape or np.prod(shape) > 4000 or len(shape) > 6:
            del chain.nodes[nodes:], chain.constants[constants:]
            continue
        chain.name, chain.shape = name, shape
    return chain


def session(model):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    proto = ir.to_proto(model).SerializeToString()
    return ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])


def compare(chain, before, after, result, index):
    """One run of all samples against one run per original batch."""
    axis = result.batch_axes["x"]
    shape = [SAMPLES * d if i == axis else d for i, d in enumerate(chain.start)]
    x = stream(1, "test-rebatch-random", index).standard_normal(shape).astype(np.float32)
    single = session(before)
    parts = [single.run(None, {"x": part})[0] for part in np.split(x, SAMPLES, axis)]
    wanted = np.concatenate(parts, result.output_axes[chain.name])
    (whole,) = session(after).run(None, {"x": x})
    np.testing.assert_allclose(whole, wanted, rtol=1e-4, atol=1e-5, err_msg=f"chain {index}: {result.reason}")


def test_whatever_is_rebatched_gives_what_single_batches_give():
    """Of random chains, many are re-batched, all of those rightly, and many are not."""
    rebatched, edited = 0, 0
    for index in range(CHAINS):
        chain = grow(index)
        model = chain.model()
        before = model.clone()
        result = rebatch(model)
        if result.status == "rebatched":
            compare(chain, before, model, result, index)
            rebatched += 1
            edited += "became" in result.reason
    assert CHAINS // 5 < rebatched < CHAINS * 4 // 5
    assert edited > CHAINS // 50
