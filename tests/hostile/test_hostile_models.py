"""Damaged and malicious model files end in a ModelError that says what is wrong, and in nothing else."""

import contextlib
import os
import re
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nvaudit.errors import ModelError
from nvaudit.model.inline import MAX_NODES
from nvaudit.model.load import load_model
from nvaudit.model.template import build_template
from nvaudit.model.uses import constants

node = helper.make_node
FLOAT = TensorProto.FLOAT


def value(name, shape=None, dtype=FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def good():
    """A model of one product."""
    weight = helper.make_tensor("w", FLOAT, [4, 3], np.arange(12, dtype=np.float32).tobytes(), raw=True)
    graph = helper.make_graph(
        [node("MatMul", ["x", "w"], ["y"])], "g", [value("x", ["n", 4])], [value("y")], [weight]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def refused(tmp_path, model, message):
    """Loading raises ModelError with exactly this message, after the path."""
    path = tmp_path / "m.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with pytest.raises(ModelError, match=f"^{re.escape(str(path))}: {re.escape(message)}$"):
        load_model(path)


def test_missing_folder_and_empty_files_are_refused(tmp_path):
    """A path that is no model file is named with what it is."""
    with pytest.raises(ModelError, match=r"none\.onnx: no such file; give an \.onnx model"):
        load_model(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match=r": is not a file; give an \.onnx model"):
        load_model(tmp_path)
    refused(tmp_path, b"", "is empty; export the model again")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every file")
def test_unreadable_file_is_refused(tmp_path):
    """Permission denied is reported as such."""
    path = tmp_path / "m.onnx"
    path.write_bytes(good().SerializeToString())
    path.chmod(0)
    with pytest.raises(ModelError, match="cannot be read: Permission denied; check its permissions"):
        load_model(path)


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n" * 9, b"\xff" * 100, b"PK\x03\x04" + bytes(60)])
def test_files_of_other_formats_are_refused(tmp_path, data):
    """Images, archives and noise are no ONNX models."""
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"m\.onnx: (not a readable ONNX model: |holds no ONNX graph)"):
        load_model(path)


def test_truncated_file_is_refused(tmp_path):
    """A file cut in the middle does not parse."""
    path = tmp_path / "m.onnx"
    path.write_bytes(good().SerializeToString()[:-20])
    with pytest.raises(ModelError, match=r"does not parse as protobuf .*truncated or damaged"):
        load_model(path)


def test_model_without_a_graph_is_refused(tmp_path):
    """A message with a header only."""
    model = good()
    model.ClearField("graph")
    refused(tmp_path, model, "holds no ONNX graph; give an .onnx model file")


def test_model_without_operator_set_or_outputs_is_refused(tmp_path):
    """Both are needed to run it."""
    model = good()
    del model.opset_import[:]
    refused(tmp_path, model, "declares no operator set; export the model again")
    model = good()
    del model.graph.output[:]
    refused(tmp_path, model, "the graph has no outputs; there is nothing to audit")


def test_operator_set_version_out_of_range_is_refused(tmp_path):
    """Negative versions exist in damaged files only."""
    model = good()
    model.opset_import[0].version = -5
    refused(tmp_path, model, "operator set '' has version -5; export the model again")


def test_names_that_nothing_produces_are_refused(tmp_path):
    """Inputs of nodes and outputs of the graph must come from somewhere."""
    model = good()
    model.graph.node[0].input[0] = "ghost"
    refused(
        tmp_path,
        model,
        "the graph: node 0 (MatMul): nothing produces its input 'ghost'; export the model again",
    )
    model = good()
    model.graph.output[0].name = "ghost"
    refused(tmp_path, model, "the graph: nothing produces its output 'ghost'; export the model again")


def test_names_that_are_no_text_are_refused(tmp_path):
    """The parser accepts any bytes as a name; nothing else does."""
    data = good().SerializeToString().replace(b"MatMul", b"Mat\x9aul")
    refused(
        tmp_path,
        data,
        "the graph: the name b'Mat\\x9aul' is not UTF-8 text; the file is damaged, export it again",
    )


def test_values_produced_twice_are_refused(tmp_path):
    """Two nodes with one output name."""
    model = good()
    model.graph.node.append(node("Neg", ["x"], ["y"]))
    refused(tmp_path, model, "the graph: 'y' is produced twice; export the model again")


def test_cycles_are_refused(tmp_path):
    """Two nodes that need each other."""
    model = good()
    model.graph.node.extend([node("Add", ["x", "b"], ["a"]), node("Neg", ["a"], ["b"])])
    refused(tmp_path, model, "the graph has a cycle; export the model again")


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ([-4, 3], "has shape [-4, 3]; a stored tensor needs whole dimensions"),
        (
            [4, 4],
            "its shape [4, 4] needs 64 bytes but 48 are stored; the file is damaged, export the model again",
        ),
        ([2**40, 2**40], f"declares {2**80} elements, more than can be read; the file is damaged"),
        ([2**62, 0], "declares 0 elements, more than can be read; the file is damaged"),
    ],
)
def test_shapes_that_do_not_fit_their_data_are_refused(tmp_path, dims, message):
    """Negative, too large, overflowing, or another size than the data."""
    model = good()
    model.graph.initializer[0].dims[:] = dims
    refused(tmp_path, model, f"initializer 'w': {message}")


def test_unknown_element_types_and_missing_data_are_refused(tmp_path):
    """Type numbers that ONNX does not have, and tensors without data."""
    model = good()
    model.graph.initializer[0].data_type = 99
    refused(tmp_path, model, "initializer 'w': unknown element type 99; export the model again")
    model = good()
    model.graph.initializer[0].ClearField("raw_data")
    refused(
        tmp_path,
        model,
        "initializer 'w': its shape [4, 3] needs 12 values but 0 are stored; the file is damaged, export the "
        "model again",
    )


def test_input_beyond_any_memory_is_refused(tmp_path):
    """A declared input of 2**60 elements is not fed."""
    model = good()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2**60
    refused(tmp_path, model, f"input 'x' has shape [{2**60}, 4], beyond any memory")


def test_sparse_bomb_is_refused(tmp_path):
    """One value in a shape of a million by a million is not expanded."""
    model = good()
    del model.graph.initializer[:]
    values, indices = (
        helper.make_tensor("w", FLOAT, [1], [1.0]),
        helper.make_tensor("i", TensorProto.INT64, [1], [7]),
    )
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [10**6, 10**6]))
    refused(
        tmp_path,
        model,
        f"sparse initializer 'w': has {10**12} elements when dense; at most 1 GiB is expanded",
    )


def test_sparse_indices_outside_the_shape_are_refused(tmp_path):
    """An index beyond the last element would write elsewhere."""
    model = good()
    del model.graph.initializer[:]
    values, indices = (
        helper.make_tensor("w", FLOAT, [1], [1.0]),
        helper.make_tensor("i", TensorProto.INT64, [1], [12]),
    )
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 3]))
    refused(tmp_path, model, "sparse initializer 'w': its indices do not fit its shape [4, 3]; export again")


def with_external(**entries):
    model = good()
    stored = model.graph.initializer[0]
    stored.ClearField("raw_data")
    stored.data_location = TensorProto.EXTERNAL
    for key, text in entries.items():
        stored.external_data.add(key=key, value=str(text))
    return model


BESIDE = "put the data file beside the model and refer to it by its bare name"


@pytest.mark.parametrize(
    "location",
    ["/etc/hostname", "../secret", "a/../../secret", "C:\\secret", "\\\\host\\share", "..\\secret"],
)
def test_external_data_outside_the_folder_is_refused(tmp_path, location):
    """Absolute paths and parents, in the notation of any system."""
    refused(
        tmp_path,
        with_external(location=location),
        f"initializer 'w': external data at {location!r}, outside the model's folder; {BESIDE}",
    )


def test_external_data_behind_a_link_out_of_the_folder_is_refused(tmp_path):
    """A link inside the folder that leads out of it."""
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(48))
    (folder / "data").symlink_to("../secret")
    refused(
        folder,
        with_external(location="data"),
        f"initializer 'w': external data at 'data' is a link out of the model's folder; {BESIDE}",
    )


def test_missing_external_data_is_refused(tmp_path):
    """Files that are absent, folders, and an empty location."""
    refused(
        tmp_path,
        with_external(location="data"),
        "initializer 'w': its external data file 'data' is missing; put it beside the model",
    )
    (tmp_path / "data").mkdir()
    refused(
        tmp_path,
        with_external(location="data"),
        f"initializer 'w': external data at 'data' is not a plain file; {BESIDE}",
    )
    refused(tmp_path, with_external(offset=0), f"initializer 'w': external data without a location; {BESIDE}")


def test_external_data_in_a_device_file_is_refused(tmp_path):
    """A named pipe would never end."""
    os.mkfifo(tmp_path / "data")
    refused(
        tmp_path,
        with_external(location="data"),
        f"initializer 'w': external data at 'data' is not a plain file; {BESIDE}",
    )


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "needs bytes 0 to 48 of 'data', which has only 40; the file is truncated, fetch or export it "
         "again"),
        ({"length": 40}, "its shape needs 48 bytes but its external data has length 40; the file is damaged, "
         "export the model again"),
        ({"offset": 2**62}, f"needs bytes {2**62} to {2**62 + 48} of 'data', which has only 40; the file is "
         "truncated, fetch or export it again"),
        ({"offset": -4}, "external data offset is '-4', not a number of bytes; export again"),
        ({"length": "1e3"}, "external data length is '1e3', not a number of bytes; export again"),
    ],
)  # fmt: skip
def test_external_data_that_does_not_fit_is_refused(tmp_path, entries, message):
    """Truncated files, and offsets and lengths that do not fit the shape."""
    (tmp_path / "data").write_bytes(bytes(40))
    refused(tmp_path, with_external(location="data", **entries), f"initializer 'w': {message}")


def test_recursive_functions_are_refused(tmp_path):
    """A function that calls itself cannot be inlined."""
    model = good()
    body = [node("again", ["a"], ["b"], domain="l")]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("l", 1)]
    model.functions.append(helper.make_function("l", "again", ["a"], ["b"], body, opsets))
    model.opset_import.add(domain="l", version=1)
    model.graph.node[0].CopyFrom(node("again", ["x"], ["y"], domain="l"))
    refused(tmp_path, model, "function 'again' calls itself; ONNX functions cannot recurse")


def test_functions_that_expand_without_bound_are_refused(tmp_path):
    """Forty functions of two calls each are 2**40 nodes."""
    model = good()
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("l", 1)]
    for level in range(40):
        called = {"op_type": f"f{level + 1}", "domain": "l"} if level < 39 else {"op_type": "Neg"}
        body = [node(inputs=["a"], outputs=["m"], **called), node(inputs=["m"], outputs=["b"], **called)]
        model.functions.append(helper.make_function("l", f"f{level}", ["a"], ["b"], body, opsets))
    model.opset_import.add(domain="l", version=1)
    model.graph.node[0].CopyFrom(node("f0", ["x"], ["y"], domain="l"))
    refused(
        tmp_path, model, f"its functions expand to more than {MAX_NODES} nodes; inline them when exporting"
    )


def test_deep_nesting_is_refused(tmp_path):
    """Two thousand graphs inside each other are beyond the parser; the stack does not overflow."""

    def field(number, payload):
        size, length = len(payload), b""
        while size > 127:
            size, length = size >> 7, length + bytes([size & 127 | 128])
        return bytes([number << 3 | 2]) + length + bytes([size]) + payload

    graph = b""
    for _ in range(2000):
        graph = field(1, field(5, field(6, graph)))  # GraphProto.node.attribute.g
    path = tmp_path / "m.onnx"
    path.write_bytes(good().SerializeToString() + field(7, graph))
    with pytest.raises(ModelError, match="does not parse as protobuf"):
        load_model(path)


def test_nesting_within_the_limit_of_the_parser_is_read(tmp_path):
    """Twenty branches inside each other are analysed and rewritten."""
    inner = helper.make_graph([node("MatMul", ["x", "w"], ["o"])], "b", [], [value("o")])
    for _ in range(20):
        inner = helper.make_graph([node("If", ["c"], ["o"], then_branch=inner)], "b", [], [value("o")])
    model = good()
    model.graph.node.append(node("If", ["c"], ["z"], then_branch=inner))
    model.graph.output.append(value("z"))
    model.graph.input.append(value("c", [], TensorProto.BOOL))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert survives(path)


def mutate(data, rng):
    """Flip bytes, cut the file, or insert bytes."""
    changed = bytearray(data)
    kind = rng.integers(3)
    if kind == 0:
        for position in rng.integers(len(changed), size=rng.integers(1, 9)):
            changed[position] = rng.integers(256)
    elif kind == 1:
        del changed[rng.integers(len(changed)) :]
    else:
        at = rng.integers(len(changed))
        changed[at:at] = rng.integers(0, 256, rng.integers(1, 20), dtype=np.uint8).tobytes()
    return bytes(changed)


def survives(path):
    """Everything that is done with a model either works or raises ModelError."""
    try:
        loaded = load_model(path)
        found = constants(loaded)
        weights = [constant.weight for constant in found if constant.weight is not None]
        build_template(loaded, [weight.key for weight in weights])
    except ModelError:
        return False
    for weight in weights:
        with contextlib.suppress(ModelError):
            weight.load()
    return True


@pytest.mark.reference
@pytest.mark.parametrize(
    "name",
    [
        "imp_qlstm_scan",
        "mnist_cntk_opset7",
        "mnist_conv_maxpool",
        "cifar_resnet44_extdata",
        "vad_silero_16k_op15",
    ],
)
def test_mutated_models_end_in_a_model_error_or_load(tmp_path, shared_data, name, capfd):
    """Thirty mutations of each of five real models, and of their structure alone; nothing is printed."""
    source = shared_data / "models" / f"{name}.onnx"
    proto = onnx.load(source, load_external_data=False)
    # Most bytes of a model are weights; without the large ones the mutations hit the structure.
    for stored in proto.graph.initializer:
        if len(stored.raw_data) > 4096:
            stored.raw_data = b""
            stored.dims[:] = [0, *stored.dims[1:]]
    data = proto.SerializeToString()
    if name.endswith("extdata"):
        beside = source.with_name(source.name + ".data")
        (tmp_path / beside.name).write_bytes(beside.read_bytes())
    path = tmp_path / "m.onnx"
    rng = np.random.Generator(np.random.PCG64(list(name.encode())))
    path.write_bytes(source.read_bytes())
    assert survives(path)
    outcomes = []
    for trial in range(30):
        path.write_bytes(mutate(data if trial % 3 else source.read_bytes(), rng))
        outcomes.append(survives(path))
    assert not all(outcomes)
    assert capfd.readouterr() == ("", "")
    assert sys.getrecursionlimit() == 1000


@pytest.mark.parametrize("changes", [{"hidden_size": 5}, {"direction": ""}, {"direction": "bidirectional"}])
def test_a_recurrent_layer_that_contradicts_its_weights(tmp_path, command, changes):
    """It is not written out for converters, and ONNX Runtime says what is wrong where there are none."""
    value, rng = onnx.helper.make_tensor_value_info, np.random.default_rng(0)
    stored = [
        onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("W", (1, 12, 2)), ("R", (1, 12, 3)))
    ]
    layer = onnx.helper.make_node("LSTM", ["x", "W", "R"], ["y"], **({"hidden_size": 3} | changes))
    graph = onnx.helper.make_graph([layer], "g", [value("x", 1, [3, 1, 2])], [value("y", 1, None)], stored)
    path = tmp_path / "m.onnx"
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path
    )
    ran = command("audit", path, "-n", 2, "-j", 0, "-q", "--adc-bits", 6)
    assert (ran.code, ran.out) == (2, "")
    assert "LSTM has weights of other sizes than its hidden_size and direction say" in ran.err
    assert command("audit", path, "-n", 2, "-j", 0, "-q").code == 2
