"""Mutated inputs for fuzz.py: each case follows from the campaign's seed, its kind and its number alone.

A case is a folder of files and the command that reads them. Most mutations keep the form of a file and
change what it says (a protobuf field, a JSON value, an array header, a CSV cell); some change bytes.
"""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

REPO = Path(__file__).resolve().parents[1]
EXAMPLE = REPO / "examples" / "digits_cnn.onnx"
TECHNOLOGIES = [
    path.read_bytes() for path in sorted((REPO / "technology").glob("*.json")) if path.name != "schema.json"
]
KINDS = ("onnx", "json", "npz", "csv", "report", "technology")

NUMBERS = [0, 1, -1, 2, 3, 7, 64, 255, 2**15, 2**31 - 1, 2**31, -(2**31), 2**33, 2**62, 2**63 - 1, -(2**63)]
FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-310, 1e-30, 0.5, 1e10, 1e38, 3.4e38, 1e308, float("inf"), float("nan")]
TEXTS = [
    "",
    "x",
    "y",
    "W",
    "a" * 300,
    "../../etc/passwd",
    "\x1b[31m",
    "NaN",
    "ai.onnx",
    "Loop",
    "ä€",
    "\x00",
    "-",
]
VALUES = [None, True, False, [], {}, [[]], "", "x", 0, -1, 1e308, 1e-320, 2**63, 2**70, [1, 2, 3], {"a": 1}]


_DENSE, _IMAGES = 1, 3
"""Places of small models among the seeds: one of 4 inputs, one of [N, 1, 8, 8] images."""


@dataclass(frozen=True)
class Case:
    """Files and a command: ``{d}`` in an argument stands for the folder of the files."""

    files: dict[str, bytes]
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Seeds:
    """What is mutated: models as serialised messages, profiles, reports, and data of the example model."""

    models: list[bytes]
    profiles: list[bytes]
    reports: list[bytes]


def make_case(kind: str, rng: random.Random, seeds: Seeds) -> Case:
    """Make one case."""
    return _MAKERS[kind](rng, seeds)


# ---- models ----


def seed_models(limit: int | None = None) -> list[bytes]:
    """The example, small graphs of our own, and ONNX's node tests with their later inputs stored."""
    found = [EXAMPLE.read_bytes(), *(model.SerializeToString() for model in own_models())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    for case in cases[:: 1 if limit is None else max(1, len(cases) // limit)]:
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        if model.ByteSize() > 200_000:
            continue
        if case.data_sets:
            _store_inputs(model, case.data_sets[0][0])
        found.append(model.SerializeToString())
    return found


def _store_inputs(model: Any, arrays: Any) -> None:
    """Make initializers of all inputs but the first, so that there are weights."""
    for value, array in list(zip(model.graph.input, arrays, strict=False))[1:]:
        if isinstance(array, np.ndarray) and array.dtype.kind in "biuf" and array.nbytes < 50_000:
            model.graph.initializer.append(numpy_helper.from_array(array, value.name))
            model.graph.input.remove(value)


def own_models() -> list[Any]:
    """Small graphs of the forms that matter: products, convolutions, integers, recurrence, subgraphs."""
    rng = np.random.default_rng(7)
    node, value = helper.make_node, helper.make_tensor_value_info

    def stored(name: str, *shape: int, dtype: Any = np.float32) -> Any:
        array = rng.standard_normal(shape) if dtype == np.float32 else rng.integers(-9, 9, shape)
        return numpy_helper.from_array(np.asarray(array).astype(dtype), name)

    def model(nodes: list[Any], tensors: list[Any], shape: Any = ("N", 4), functions: Any = ()) -> Any:
        graph = helper.make_graph(nodes, "g", [value("x", 1, shape)], [value("y", 1, None)], tensors)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("l", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions)

    product = node("MatMul", ["x", "W"], ["m"])
    scale, zero = numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.int8(0), "z")
    branch = [
        helper.make_graph([node(op, ["m"], [f"o{op}"])], op, [], [value(f"o{op}", 1, None)])
        for op in ("Neg", "Abs")
    ]
    body = helper.make_graph(
        [node("Identity", ["c"], ["co"]), node("Mul", ["v", "v"], ["vo"])],
        "b",
        [value("i", 7, []), value("c", 9, []), value("v", 1, None)],
        [value("co", 9, []), value("vo", 1, None)],
    )
    called = helper.make_function(
        "l", "f", ["a", "w"], ["b"], [node("MatMul", ["a", "w"], ["b"])], [helper.make_opsetid("", 17)]
    )
    sparse = model([product, node("Relu", ["m"], ["y"])], [])
    sparse.graph.sparse_initializer.append(
        helper.make_sparse_tensor(
            helper.make_tensor("W", 1, [2], [1.0, 2.0]), helper.make_tensor("i", 7, [2], [0, 5]), [4, 3]
        )
    )
    conv = ("N", 1, 8, 8)
    return [
        model(
            [product, node("Add", ["m", "b"], ["a"]), node("Softmax", ["a"], ["y"])],
            [stored("W", 4, 3), stored("b", 3)],
        ),
        model(
            [node("Gemm", ["x", "W", "b"], ["g"], transB=1), node("Relu", ["g"], ["y"])],
            [stored("W", 3, 4), stored("b", 3)],
        ),
        model(
            [
                node("Conv", ["x", "K"], ["c"]),
                node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2]),
                node("Flatten", ["p"], ["f"]),
                node("MatMul", ["f", "W"], ["y"]),
            ],
            [stored("K", 2, 1, 3, 3), stored("W", 50, 3)],
            conv,
        ),
        model(
            [node("DequantizeLinear", ["q", "s", "z"], ["W"]), node("MatMul", ["x", "W"], ["y"])],
            [stored("q", 4, 3, dtype=np.int8), scale, zero],
        ),
        model(
            [node("LSTM", ["x", "W", "R"], ["h"], hidden_size=2), node("Squeeze", ["h"], ["y"])],
            [stored("W", 1, 8, 4), stored("R", 1, 8, 2)],
            (3, "N", 4),
        ),
        model(
            [
                product,
                node("ReduceSum", ["m"], ["t"], keepdims=0),
                node("Greater", ["t", "s"], ["c"]),
                node("If", ["c"], ["y"], then_branch=branch[0], else_branch=branch[1]),
            ],
            [stored("W", 4, 3), scale],
        ),
        model(
            [product, node("Loop", ["M", "", "m"], ["y"], body=body)],
            [stored("W", 4, 3), numpy_helper.from_array(np.int64(2), "M")],
        ),
        model(
            [node("f", ["x", "W"], ["m"], domain="l"), node("f", ["m", "V"], ["y"], domain="l")],
            [stored("W", 4, 3), stored("V", 3, 3)],
            functions=[called],
        ),
        sparse,
        model(
            [product, node("BatchNormalization", ["m", "b", "b", "b", "v"], ["y"])],
            [stored("W", 4, 3), stored("b", 3), numpy_helper.from_array(np.ones(3, np.float32), "v")],
        ),
        model(
            [
                node("Constant", [], ["W"], value=stored("", 4, 3)),
                product,
                node("Reshape", ["m", "r"], ["y"]),
            ],
            [numpy_helper.from_array(np.array([0, 3]), "r")],
        ),
        model(
            [node("Tile", ["w", "r"], ["W"]), product, node("Identity", ["m"], ["y"])],
            [stored("w", 4, 1), numpy_helper.from_array(np.array([1, 3]), "r")],
        ),
        model(
            [
                node("ConstantOfShape", ["r"], ["W"], value=stored("", 1)),
                product,
                node("Identity", ["m"], ["y"]),
            ],
            [numpy_helper.from_array(np.array([4, 3]), "r")],
        ),
    ]


def _messages(message: Any, depth: int = 0) -> list[Any]:
    """A message and every message inside it."""
    found = [message]
    if depth < 12:
        for field, content in message.ListFields():
            if field.message_type is not None:
                for part in content if field.is_repeated else [content]:
                    found.extend(_messages(part, depth + 1))
    return found


def mutate_message(message: Any, rng: random.Random) -> None:
    """Change one field of one message inside."""
    target = rng.choice(_messages(message))
    fields = list(target.DESCRIPTOR.fields)
    present = [field for field, _ in target.ListFields()]
    field = rng.choice(present if present and rng.random() < 0.8 else fields)
    if field.is_repeated:
        _mutate_repeated(target, field, rng)
    elif field.message_type is not None:
        if rng.random() < 0.3:
            target.ClearField(field.name)
        else:
            getattr(target, field.name).SetInParent()
    elif rng.random() < 0.1:
        target.ClearField(field.name)
    else:
        setattr(target, field.name, _scalar(field, getattr(target, field.name), rng))


def _mutate_repeated(target: Any, field: Any, rng: random.Random) -> None:
    content = getattr(target, field.name)
    choice = rng.choice(["drop", "copy", "swap", "set", "set", "set", "clear", "many"])
    count = len(content)
    if choice == "clear" and rng.random() < 0.3:
        target.ClearField(field.name)
    elif not count or choice == "many":
        for _ in range(1 if choice != "many" else rng.choice([1, 2, 70])):
            if field.message_type is not None:
                content.add()
            else:
                content.append(_scalar(field, None, rng))
    elif choice == "drop":
        del content[rng.randrange(count)]
    elif field.message_type is not None:
        first, second = rng.randrange(count), rng.randrange(count)
        copy = type(content[0])()
        copy.CopyFrom(content[first])
        if choice == "copy":
            content.add().CopyFrom(copy)
        else:
            content[first].CopyFrom(content[second])
            content[second].CopyFrom(copy)
    elif choice == "copy":
        content.append(content[rng.randrange(count)])
    else:
        place = rng.randrange(count)
        content[place] = _scalar(field, content[place], rng)


def _scalar(field: Any, old: Any, rng: random.Random) -> Any:
    kinds = field.CPPTYPE_INT32, field.CPPTYPE_INT64, field.CPPTYPE_UINT32, field.CPPTYPE_UINT64
    if field.cpp_type == field.CPPTYPE_ENUM:
        return rng.choice(list(field.enum_type.values)).number
    if field.cpp_type in kinds:
        wide = field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64)
        number = rng.choice([*NUMBERS, (old or 0) + rng.choice([-1, 1]), rng.randrange(30)])
        low = (
            0
            if field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64)
            else -(2 ** (63 if wide else 31))
        )
        return max(low, min(number, 2 ** (63 if wide else 31) - 1))
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice(FLOATS)
    if field.cpp_type == field.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if field.type == field.TYPE_BYTES:
        return mutate_bytes(old or b"\0" * rng.choice([0, 1, 4, 48]), rng)
    names = [*TEXTS, "m", "W", "b", old or "x", (old or "x") + "_"]
    names += [
        "Conv",
        "MatMul",
        "Gemm",
        "Reshape",
        "Add",
        "If",
        "Constant",
        "Transpose",
        "QuantizeLinear",
        "Dropout",
    ]
    return rng.choice(names)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, double or insert a few bytes."""
    work = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        place = rng.randrange(len(work) + 1)
        choice = rng.randrange(5)
        if choice == 0 and work:
            work[place % len(work)] ^= 1 << rng.randrange(8)
        elif choice == 1:
            del work[place : place + rng.choice([1, 4, 100])]
        elif choice == 2:
            work[place:place] = bytes(rng.randrange(256) for _ in range(rng.choice([1, 4, 16])))
        elif choice == 3:
            work[place:place] = work[place : place + 64]
        else:
            work = work[:place] if rng.random() < 0.2 else work
    return bytes(work)


_OUTPUTS = ["-q", "-j", "0", "--pass-timeout", "5"]
_FEW = ["--limit", "2"]
_MODEL_COMMANDS: list[tuple[int, list[str]]] = [
    (30, ["inspect", "{m}"]),
    (4, ["inspect", "{m}", "--json"]),
    (40, ["audit", "{m}", "-n", "2", "--no-roughness", *_FEW, *_OUTPUTS]),
    (6, ["audit", "{m}", "-n", "2", "--no-roughness", "--device", "pcm", "--time", "1d", *_FEW, *_OUTPUTS]),
    (8, ["audit", "{m}", "-n", "2", "--no-roughness", "--adc-bits", "6", *_FEW, *_OUTPUTS]),
    (3, ["audit", "{m}", "-n", "2", "--no-roughness", "--read-noise", "0.01", *_FEW, *_OUTPUTS]),
    (
        2,
        [
            "audit",
            "{m}",
            "-n",
            "2",
            "--no-roughness",
            "--skip-zero-groups",
            "-o",
            "{d}/r.json",
            *_FEW,
            *_OUTPUTS,
        ],
    ),
    (2, ["landscape", "{m}", "--grid", "3", "--pairs", "1", "--images", "2", *_OUTPUTS]),
    (2, ["roofline", "{m}", "-n", "2", "--cell-bits", "1,2", *_FEW, *_OUTPUTS]),
    (1, ["verify-plan", "{m}", "-n", "2", "--ranking", "magnitude", *_FEW, *_OUTPUTS]),
    (1, ["compare", "{m}", str(EXAMPLE), "-n", "2", "--no-roughness", *_FEW, *_OUTPUTS]),
    (
        1,
        [
            "harden",
            "{m}",
            "-m",
            "remap",
            "-o",
            "{d}/h.onnx",
            "-n",
            "2",
            "--calibration-images",
            "4",
            "--calibration-chips",
            "2",
            "--time-budget",
            "1",
            *_OUTPUTS,
        ],
    ),
]


def _onnx_case(rng: random.Random, seeds: Seeds) -> Case:
    data = seeds.models[rng.randrange(14)] if rng.random() < 0.4 else rng.choice(seeds.models)
    if rng.random() < 0.08:
        data = mutate_bytes(data, rng)
    else:
        model = onnx.ModelProto.FromString(data)
        for _ in range(rng.choice([1, 1, 1, 2, 3, 5])):
            mutate_message(model.graph if rng.random() < 0.85 else model, rng)
        try:
            data = model.SerializeToString()
        except Exception:  # text that is no UTF-8
            data = mutate_bytes(data, rng)
    weights = [weight for weight, _ in _MODEL_COMMANDS]
    command = rng.choices([arguments for _, arguments in _MODEL_COMMANDS], weights)[0]
    return Case({"m.onnx": data}, tuple(part.replace("{m}", "{d}/m.onnx") for part in command))


# ---- JSON ----


def mutate_json(value: Any, rng: random.Random) -> Any:
    """Change one value of a tree."""
    places: list[tuple[Any, Any]] = []

    def walk(part: Any) -> None:
        keys = part if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ()
        for key in keys:
            places.append((part, key))
            walk(part[key])

    walk(value)
    if not places:
        return copy.deepcopy(rng.choice(VALUES))
    part, key = rng.choice(places)
    choice = rng.randrange(10)
    if choice == 0:
        del part[key]
    elif choice == 1 and isinstance(part, dict):
        part[rng.choice(TEXTS)] = part.pop(key)
    elif choice == 2 and isinstance(part, list):
        part.extend(part[key : key + 1] * rng.choice([1, 3, 2000]))
    elif choice == 3:
        other, name = rng.choice(places)
        part[key] = json.loads(json.dumps(other[name]))
    elif choice < 7 and isinstance(part[key], int | float) and not isinstance(part[key], bool):
        number = part[key]
        part[key] = rng.choice(
            [*NUMBERS[:10], -number, number + 1, number * 1.5, number * 1e6, 1e-310, 1e308]
        )
    elif isinstance(part[key], str):
        part[key] = rng.choice([*TEXTS, part[key] + "x", part[key][::-1]])
    else:
        part[key] = copy.deepcopy(rng.choice(VALUES))
    return value


def json_bytes(seed: bytes, rng: random.Random) -> bytes:
    """A mutated JSON file."""
    if rng.random() < 0.1:
        return mutate_bytes(seed, rng)
    if rng.random() < 0.02:
        return rng.choice(
            [b"[" * 100_000, b'{"a":' * 50_000, b"9" * 10_000, b"", b"null", b"\xff\xfe", b'{"a":1,"a":2}']
        )
    value = json.loads(seed)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        value = mutate_json(value, rng)
    return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def _profile_case(rng: random.Random, seeds: Seeds) -> Case:
    if rng.random() < 0.25:  # the preprocessing beside a data file
        preprocess = b'{"scale": 255, "mean": [0.5], "std": [0.5], "layout": "NCHW", "color": "L"}'
        images = np.zeros((2, 1, 8, 8), np.uint8)
        files = {
            "d.npz": npz_bytes({"x": images, "y": np.zeros(2, np.int64)}),
            "d.json": json_bytes(preprocess, rng),
        }
        files["m.onnx"] = seeds.models[_IMAGES]
        return Case(
            files, ("audit", "{d}/m.onnx", "--data", "{d}/d.npz", "-n", "2", "--no-roughness", *_OUTPUTS)
        )
    files = {"p.json": json_bytes(rng.choice(seeds.profiles), rng), "m.onnx": seeds.models[_DENSE]}
    commands = (
        ("devices", "validate", "{d}/p.json"),
        ("devices", "show", "{d}/p.json", "--json"),
        ("devices", "show", "{d}/p.json", "--plot"),
        ("audit", "{d}/m.onnx", "-d", "{d}/p.json", "-n", "2", "--no-roughness", *_FEW, *_OUTPUTS),
    )
    return Case(files, rng.choices(commands, (5, 2, 1, 2))[0])


def _technology_case(rng: random.Random, seeds: Seeds) -> Case:
    seed = rng.choice(TECHNOLOGIES)
    # Half of the files are valid, with numbers that no circuit has: what follows from them must hold too.
    data = json_bytes(seed, rng) if rng.random() < 0.5 else extreme_technology(seed, rng)
    files = {"t.json": data, "m.onnx": seeds.models[_DENSE]}
    device = ("-d", rng.choice(("rram_65nm", "fefet1")), "--adc-bits", rng.choice(("2", "5", "8")))
    mode = rng.choice(((), ("--input-mode", "parallel"), ("--input-mode", "pwm"), ("--pipelined",)))
    size = ("--crossbar", rng.choice(("64x64", "1x1", "4096x16")))
    commands = (
        ("technology", "validate", "{d}/t.json"),
        ("technology", "show", "{d}/t.json"),
        ("cost", "{d}/m.onnx", "-t", "{d}/t.json", *device, *mode, *size, *_OUTPUTS),
        ("cost", "{d}/m.onnx", "-t", "{d}/t.json", *device, "--energy-chips", "2", "--html", "{d}/c.html"),
        ("audit", "{d}/m.onnx", "-t", "{d}/t.json", *device, "-n", "2", "--no-roughness", *_FEW, *_OUTPUTS),
        ("explore", "{d}/m.onnx", "-t", "{d}/t.json", *device, "-n", "2", *_FEW, *_OUTPUTS),
    )
    return Case(files, rng.choices(commands, (4, 2, 6, 2, 1, 1))[0])


def extreme_technology(seed: bytes, rng: random.Random) -> bytes:
    """A technology some of whose numbers are far from any circuit's, with a valid range that has them."""
    value = json.loads(seed)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        found = [part for part in _parts(value) if isinstance(part, dict) and "valid" in part]
        part = rng.choice(found)
        part["value"] = rng.choice((0, 1e-310, 1e-12, 0.5, 1, 3, 1e6, 1e15))
        part["valid"] = sorted((part["value"], rng.choice((part["value"], 1e-310, 1e15))))
    for _ in range(rng.choice([0, 0, 0, 1])):
        parent = rng.choice([part for part in _parts(value) if isinstance(part, dict) and part])
        parent.pop(rng.choice(list(parent)))
    return json.dumps(value).encode()


def _parts(value: Any) -> Iterator[Any]:
    """A JSON value and everything in it."""
    yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _parts(item)


def _report_case(rng: random.Random, seeds: Seeds) -> Case:
    files = {"r.json": json_bytes(rng.choice(seeds.reports), rng)}
    commands = (
        ("report", "{d}/r.json"),
        ("report", "{d}/r.json", "--html", "{d}/r.html"),
        ("report", "{d}/r.json", "--markdown", "{d}/r.md", "--junit", "{d}/r.xml", "--text"),
        ("replay", "{d}/r.json", "-o", "{d}/chip.onnx"),
        ("compare", "{d}/r.json", "{d}/s.json", "--json"),
    )
    command = rng.choices(commands, (8, 6, 6, 1, 4))[0]
    if "{d}/s.json" in command:
        files["s.json"] = seeds.reports[0]
    return Case(files, command)


# ---- arrays ----


def npz_bytes(arrays: dict[str, Any], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive of arrays, or of bytes as they are."""
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", method) as archive:
        warnings.simplefilter("ignore")  # a name twice is one of the cases
        for name, array in arrays.items():
            archive.writestr(
                name.rstrip("\t") + ".npy", array if isinstance(array, bytes) else npy_bytes(array)
            )
    return out.getvalue()


def npy_bytes(array: Any) -> bytes:
    """An array as .npy."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


_DTYPES = [
    "float32",
    "float64",
    "float16",
    "int8",
    "uint8",
    "int64",
    "uint64",
    "bool",
    "complex64",
    "S3",
    "U2",
    "O",
    "datetime64[s]",
    "timedelta64[s]",
    ">f4",
    ">i8",
    "V5",
    "i4,f4",
]


def _odd_array(rng: random.Random) -> Any:
    shape = rng.choice(
        [
            (),
            (0,),
            (2,),
            (2, 1, 8, 8),
            (2, 8, 8, 1),
            (2, 8, 8),
            (1, 1, 8, 8),
            (2, 10),
            (2, 1),
            (3,),
            (2, 64),
            (0, 1, 8, 8),
            (2, 1, 8, 9),
            (1,) * 20,
        ]
    )
    array = np.zeros(shape)
    if array.size and rng.random() < 0.5:
        array.flat[rng.randrange(array.size)] = rng.choice([*FLOATS, 3, 9, 10, -1, 255, 2**31])
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = array.astype(rng.choice(_DTYPES))
    return np.asfortranarray(array) if rng.random() < 0.2 else array


def _lying_header(rng: random.Random) -> bytes:
    shape = rng.choice(
        [
            "(2, 1, 8, 8)",
            "(1000000000,)",
            "(-1,)",
            "(2**70,)",
            "(1,)*5",
            "(4294967296, 4294967296)",
            "()",
            "('a',)",
            "(9" + "9" * 400 + ",)",
            "(0, 4294967296)",
        ]
    )
    dtype = rng.choice(
        ["'<f4'", "'|O'", "'<f16'", "'<i8'", "[('a','<f4')]", "'<U99999999'", "'zz'", "None", "'|V0'"]
    )
    order = rng.choice(["True", "False", "1", "None"])
    header = f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}}}"
    text = header.encode() + b" " * 20 + b"\n"
    size = rng.choice([len(text), len(text), 0, 65535])
    return b"\x93NUMPY" + bytes([rng.choice([1, 1, 2, 9]), 0]) + struct.pack("<H", size) + text + b"\0" * 512


def _npz_case(rng: random.Random, seeds: Seeds) -> Case:
    images: Any = np.random.default_rng(0).random((4, 1, 8, 8)).astype(np.float32)
    arrays: dict[str, Any] = {"x": images, "y": np.arange(4) % 3}
    which = rng.choice(["x", "y"])
    choice = rng.randrange(8)
    if choice < 3:
        arrays[which] = _odd_array(rng)
    elif choice == 3:
        arrays[which] = _lying_header(rng)
    elif choice == 4:
        arrays[rng.choice([*TEXTS[1:], "image", "x\t", "y\t", "logits"])] = _odd_array(rng)
    elif choice == 5:
        del arrays[which]
    elif choice == 6:
        arrays[which] = mutate_bytes(npy_bytes(arrays[which]), rng)
    method = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    arrays = {name.replace("\x00", "0"): array for name, array in arrays.items()}
    tail = ("-n", "2", "--no-roughness", *_OUTPUTS)
    if rng.random() < 0.3:
        files = {
            f"{name}.npy": a if isinstance(a, bytes) else npy_bytes(a)
            for name, a in arrays.items()
            if name in "xy"
        }
        files["m.onnx"] = seeds.models[_IMAGES]
        return Case(files, ("audit", "{d}/m.onnx", "--data", rng.choice(["{d}", "{d}/x.npy"]), *tail))
    data = npz_bytes(arrays, method)
    data = mutate_bytes(data, rng) if choice == 7 or rng.random() < 0.1 else data
    files = {"d.npz": data, "m.onnx": seeds.models[_IMAGES]}
    return Case(files, ("audit", "{d}/m.onnx", "--data", "{d}/d.npz", *tail))


# ---- CSV ----


def _csv_case(rng: random.Random, seeds: Seeds) -> Case:
    raw = rng.random() < 0.4
    count = rng.choice([2, 4, 4, 8, 16])
    header = ["level", "value"] if raw else [rng.choice(["level", "states"]), "mean", "std"]
    rows = [header]
    for level in range(count):
        for _ in range(rng.choice([1, 3, 40]) if raw else 1):
            rows.append(
                [str(level), f"{level + rng.random():.4f}", *([] if raw else [f"{rng.random():.4f}"])]
            )
    odd = [
        "",
        " ",
        "nan",
        "inf",
        "-1",
        "1e308",
        "1e-320",
        "1e999",
        "0",
        "4095",
        "4096",
        "2.5",
        "1_0",
        "0x1",
        "=1+1",
        '"',
        "'",
        "١",
        "9" * 400,
        "a,b",
        "\x00",
        "\x1b[0m",
        "1;2",
        "1e5",
    ]
    for _ in range(rng.choice([0, 1, 1, 1, 2, 5])):
        row = rng.choice(rows)
        choice = rng.randrange(6)
        if choice < 3 and row:
            row[rng.randrange(len(row))] = rng.choice(odd)
        elif choice == 3:
            row.append(rng.choice(odd))
        elif choice == 4 and row:
            del row[rng.randrange(len(row))]
        else:
            rows.insert(rng.randrange(len(rows) + 1), list(row))
    text = rng.choice(["\n", "\n", "\r\n", "\r"]).join(
        rng.choice([",", ",", ",", ";", "\t"][: 3 if rng.random() < 0.9 else 5]).join(row) for row in rows
    )
    data = text.encode(rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16"]))
    data = mutate_bytes(data, rng) if rng.random() < 0.15 else data
    unit = rng.choice(["us", "na", "s", "level", "full_scale"])
    extra = rng.choice(
        [[], [], ["--window", "0", "10"], ["--bits", "3"], ["--name", rng.choice(["x", "a" * 300, "../x"])]]
    )
    return Case({"c.csv": data}, ("devices", "fit", "{d}/c.csv", "-o", "{d}/p.json", "--unit", unit, *extra))


_MAKERS: dict[str, Callable[[random.Random, Seeds], Case]] = {
    "onnx": _onnx_case,
    "json": _profile_case,
    "npz": _npz_case,
    "csv": _csv_case,
    "report": _report_case,
    "technology": _technology_case,
}
