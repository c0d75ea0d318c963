"""The audit's graph on crossbars in torch: the codes at the converters are those of ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from converter_outputs import converter_outputs

from nvaudit.model import load_model
from nvaudit.model.probe import expose
from nvaudit.perturb.cells import draw_cells, place_cells, target_cells
from nvaudit.perturb.chip import TensorLaw
from nvaudit.perturb.session import open_session
from nvaudit.retrain.executor.module import build_executor
from nvaudit.session import prepare
from nvaudit.spec import make_spec

MODEL = Path(__file__).parents[2] / "examples" / "digits_cnn.onnx"


def _session(folder, **options):
    spec = make_spec(
        model=MODEL, device="rram", data=MODEL.with_suffix(".npz"), limit=32, workers=0, **options
    )
    return prepare(spec, folder)


def _chip(session, folder, trial):
    """A chip as a file that also returns what leaves every ADC and DAC."""
    workload = session.workload
    proto = Path(workload.template.path).read_bytes()
    rounded = converter_outputs(onnx.ModelProto.FromString(proto))
    shown = expose(proto, rounded)[0]
    fills = {}
    tensors = {tensor.key: tensor for tensor in workload.tensors}
    for slot in workload.slots:
        tensor = tensors[slot.weight_key].open()
        law = TensorLaw(tensor, session.points[0])
        fills[slot.name] = place_cells(
            target_cells(tensor) if trial is None else draw_cells(law, 0, trial), slot
        )
    model = onnx.ModelProto.FromString(shown)
    for tensor in model.graph.initializer:
        if tensor.name in fills:
            tensor.CopyFrom(onnx.numpy_helper.from_array(fills[tensor.name], tensor.name))
    path = folder / f"chip{trial}.onnx"
    path.write_bytes(model.SerializeToString())
    return path, rounded


@pytest.mark.parametrize("encoding", ["sign_magnitude", "differential", "offset"])
def test_codes_at_the_converters_are_those_of_onnx_runtime(tmp_path, encoding):
    """Whole inputs and levels leave no room for rounding: given equal inputs every code is equal.

    What the digital part adds up is scaled, so that a DAC behind it may see a tie otherwise.
    """
    session = _session(tmp_path, adc_bits=5, dac_bits=7, encoding=encoding)
    path, rounded = _chip(session, tmp_path, None)
    x = np.load(MODEL.with_suffix(".npz"))
    name = session.loaded.inputs[0].name
    feed = np.ascontiguousarray((x[name] if name in x else x["x"])[:32], np.float32)
    wanted = open_session(path, {}).run(rounded, {name: feed})
    executor = build_executor(load_model(path)).eval()
    with torch.no_grad():
        found = executor({name: torch.from_numpy(feed)})
    assert len(rounded) == sum(1 + len(layer.split.blocks) for layer in session.crossbar.layers)
    for number, (code, key) in enumerate(zip(wanted, rounded, strict=True)):
        off = np.abs(found[key].numpy() - code)
        if number < 2 or encoding != "offset":
            assert not off.any()
        assert (off > 0).mean() < 0.01
        assert np.unique(code).size > 2


def test_codes_of_a_noisy_chip_differ_by_rounding_alone(tmp_path):
    """Of noisy devices the order of summation may decide a tie: one code in ten thousand, by one."""
    session = _session(tmp_path, adc_bits=5, dac_bits=7)
    path, rounded = _chip(session, tmp_path, 3)
    name = session.loaded.inputs[0].name
    feed = np.random.Generator(np.random.SFC64(2)).random((32, *_shape(session)), dtype=np.float32)
    first = rounded[:2]  # the DAC and the ADC of the first layer: nothing before them differs
    wanted = open_session(path, {}).run(first, {name: feed})
    with torch.no_grad():
        found = build_executor(load_model(path)).eval()({name: torch.from_numpy(feed)})
    for code, key in zip(wanted, first, strict=True):
        off = np.abs(found[key].numpy() - code)
        assert off.max() <= 1
        assert (off > 0).mean() < 1e-4


def _shape(session):
    return [int(size) for size in session.loaded.inputs[0].shape[1:]]
