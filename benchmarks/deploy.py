"""Map models onto crossbars, put the arrays together again, and say what it takes.

    python benchmarks/deploy.py MODEL.onnx … --results FILE.jsonl --device fefet1
    python benchmarks/deploy.py --weights 1000000000 --results FILE.jsonl --device rram --cell-bits 8

The second makes a model of so many weights, in external data, as a chain of matrix products. Seconds are
those of the processor, of all threads together: what else the machine does is not in them. Each model has a
process of its own, so that the peak of memory is its own. What FILE has of a model is replaced.
"""

import argparse
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from tables import lines

from nvaudit.jobs.deploying import MapSpec, map_model
from nvaudit.jobs.reassembling import check_mapping

SIDE = 8192


def make_model(path: Path, weights: int) -> Path:
    """Write a chain of SIDE x SIDE products, its weights to a file beside it, one tensor at a time."""
    count = -(-weights // SIDE**2)
    tensors, nodes = [], []
    generator = np.random.default_rng(0)
    with path.with_suffix(".data").open("wb") as file:
        for number in range(count):
            values = generator.standard_normal((SIDE, SIDE), dtype=np.float32) / np.float32(SIDE**0.5)
            tensor = TensorProto(name=f"w{number}", data_type=TensorProto.FLOAT, dims=[SIDE, SIDE])
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (
                ("location", path.with_suffix(".data").name),
                ("offset", file.tell()),
                ("length", values.nbytes),
            ):
                tensor.external_data.add(key=key, value=str(value))
            values.tofile(file)
            tensors.append(tensor)
            nodes.append(helper.make_node("MatMul", [f"x{number}", f"w{number}"], [f"x{number + 1}"]))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, ["N", SIDE])],
        [helper.make_tensor_value_info(f"x{count}", TensorProto.FLOAT, ["N", SIDE])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(path))
    return path


def peak_gib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run(model: Path, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Map and check one model."""
    out = folder / "mapping"
    begin = time.process_time()
    mapped = map_model(MapSpec.validated({"model": model, **options}), out)
    between = time.process_time()
    checked = check_mapping(out).check
    end = time.process_time()
    assert checked is not None
    shutil.rmtree(out)
    return {
        "model": model.stem,
        "device": options["device"],
        **{
            name: sum(getattr(row, name) for row in mapped.tensors)
            for name in ("weights", "devices", "crossbars")
        },
        "map_s": round(between - begin, 1),
        "check_s": round(end - between, 1),
        "mib": round(mapped.bytes / 2**20, 1),
        "peak_gib": round(peak_gib(), 2),
        "outputs": checked.outputs,
        "holds": checked.holds,
        "faults": list(checked.faults),
    }


def main() -> None:
    """Map and check the models that are named, or the one that is made."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--results", type=Path, required=True, metavar="FILE.jsonl")
    parser.add_argument("--weights", type=int)
    parser.add_argument("--device", default="fefet1")
    parser.add_argument("--cell-bits", type=int)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    options = {"device": given.device, "cell_bits": given.cell_bits}
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        if given.weights:
            given.models.append(make_model(Path(folder) / f"chain_{given.weights}.onnx", given.weights))
        for model in given.models:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                row = pool.apply(run, (model, Path(folder), options))
            rows = [one for one in lines(given.results) if one["model"] != row["model"]]
            text = "".join(json.dumps(one) + "\n" for one in [*rows, row])
            given.results.write_text(text, encoding="utf-8")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
