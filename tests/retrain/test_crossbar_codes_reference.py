"""Codes at the converters of real models, layer by layer: torch's against ONNX Runtime's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from converter_outputs import converter_outputs
from numpy.typing import NDArray

from nvaudit.mapping.quantize import dequantize
from nvaudit.model import Template, filled_model, load_model
from nvaudit.model.layout import UNMOVED
from nvaudit.model.probe import expose
from nvaudit.perturb.cells import place_cells, target_cells
from nvaudit.perturb.chip import DrawnWeights
from nvaudit.perturb.engine import place
from nvaudit.perturb.session import open_session
from nvaudit.perturb.workload import Workload
from nvaudit.retrain.executor.module import build_executor
from nvaudit.session import Session, prepare
from nvaudit.spec import make_spec

MODELS = {"mnist_lenet_keras": 5, "mnist_cntk_opset7": 3, "cifar_resnet20": 20, "cifar_vit_pgd_2_3_16": 14}
"""And how many of its layers are on crossbars."""


def quantised_file(session: Session, folder: Path) -> Path:
    """The chip without noise as a file of its own."""
    workload: Workload = session.workload
    arrays = {}
    tensors = {tensor.key: tensor for tensor in workload.tensors}
    for slot in workload.slots:
        tensor = tensors[slot.weight_key].open()
        whole = DrawnWeights(dequantize(tensor.code, tensor.scale), None)
        arrays[slot.name] = place_cells(target_cells(tensor), slot) if slot.cells else place(whole, slot)
    slots = tuple(replace(slot, transform=UNMOVED) for slot in workload.slots)
    digital = {name: file.open() for name, file in workload.template.digital.items()}
    path = folder / "chip.onnx"
    filled_model(Template(Path(workload.template.path).read_bytes(), slots, digital, {}), arrays, path)
    return path


def rounded_after(model: onnx.ModelProto, value: str) -> list[str]:
    """What leaves the converters that a value goes to."""
    found, front, seen = [], [value], set()
    converted = set(converter_outputs(model))
    while front:
        name = front.pop()
        seen.add(name)
        for node in model.graph.node:
            if name in node.input and not seen & set(node.output):
                if node.output[0] in converted:
                    found.append(node.output[0])
                else:
                    front.extend(node.output)
    return found


def layers(session: Session, model: onnx.ModelProto) -> Iterator[tuple[list[str], list[str]]]:
    """What goes into each layer, and what leaves its converters."""
    for layer in session.crossbar.layers:
        if layer.split.reason is None:
            inputs = list(dict.fromkeys(layer.split.inputs))
            codes = [code for name in layer.split.sums for code in rounded_after(model, name)]
            yield inputs, list(dict.fromkeys(codes))


def part_of(
    model: onnx.ModelProto, given: dict[str, NDArray[np.float32]], wanted: list[str]
) -> onnx.ModelProto:
    """The nodes between some values and others, as a model."""
    known, needed, kept = set(given), set(wanted), []
    for node in reversed(model.graph.node):
        if needed & (set(node.output) - known):
            kept.append(node)
            needed |= set(node.input)
    inputs = [
        onnx.helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT, value.shape)
        for key, value in given.items()
    ]
    outputs = [onnx.helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT, None) for key in wanted]
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in needed - known]
    graph = onnx.helper.make_graph(kept[::-1], "part", inputs, outputs, tensors)
    return onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version, functions=model.functions
    )


def values_of(
    path: Path, names: list[str], feed: dict[str, NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    """Inner values by ONNX Runtime."""
    proto, outputs = expose(path.read_bytes(), names)
    shown = path.with_name("shown.onnx")
    shown.write_bytes(proto)
    asked = [name for name in names if name not in feed]  # an input of the model gives itself
    made = open_session(shown, {}).run([outputs[name] for name in asked], feed)
    values = {**feed, **dict(zip(asked, made, strict=True))}
    return [values[name] for name in names]


@pytest.mark.reference
@pytest.mark.parametrize("encoding", ["sign_magnitude", "offset"])
@pytest.mark.parametrize("name", MODELS)
def test_every_layer_has_the_same_codes(shared_data, tmp_path, name, encoding):
    """Given what ONNX Runtime feeds a layer, torch's column sums have the same code at every ADC."""
    path = shared_data / "models" / f"{name}.onnx"
    data = tmp_path / "d.npz"
    spec = make_spec(
        model=path, device="rram", data=data, workers=0, adc_bits=5, dac_bits=8, encoding=encoding,
        crossbar=(128, 128),
    )  # fmt: skip
    shape = [2, *(int(size) for size in load_model(path).inputs[0].shape[1:])]
    feed = {
        load_model(path).inputs[0].name: np.random.Generator(np.random.SFC64(3)).random(shape, np.float32)
    }
    np.savez(data, **feed)
    session = prepare(spec, tmp_path)
    chip = quantised_file(session, tmp_path)
    model = onnx.load(chip)
    pairs = list(layers(session, model))
    assert len(pairs) == MODELS[name]
    names = list(dict.fromkeys(key for pair in pairs for keys in pair for key in keys))
    values = dict(zip(names, values_of(chip, names, feed), strict=True))
    varied = 0
    for inputs, codes in pairs:
        given = {key: values[key] for key in inputs}
        onnx.save(part_of(model, given, codes), tmp_path / "part.onnx")
        with torch.no_grad():
            executor = build_executor(load_model(tmp_path / "part.onnx")).eval()
            found = executor({key: torch.from_numpy(value) for key, value in given.items()})
        for key in codes:
            other = int((found[key].numpy() != values[key]).sum())
            assert other == 0, f"{key}: {other} of {values[key].size} codes differ"
        varied += np.unique(np.concatenate([values[key].ravel() for key in codes])).size > 2
    assert varied > len(pairs) / 2  # in some the offset alone fills the range of a converter
