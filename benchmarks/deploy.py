"""Map models onto crossbars, put the arrays together again, and say what it takes.

    python benchmarks/deploy.py MODEL.onnx … --device fefet1
    python benchmarks/deploy.py --weights 1000000000 --device rram --cell-bits 8

The second makes a model of so many weights, in external data, as a chain of matrix products. Seconds are
those of the processor, of all threads together: what else the machine does is not in them.
"""

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

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


def run(model: Path, folder: Path, options: dict[str, object]) -> str:
    """Map and check one model; a row of the table."""
    out = folder / "mapping"
    begin = time.process_time()
    mapped = map_model(MapSpec.validated({"model": model, **options}), out)
    between = time.process_time()
    print(f"<!-- {model.stem} mapped in {between - begin:.1f} s -->", flush=True)
    checked = check_mapping(out).check
    end = time.process_time()
    assert checked is not None
    shutil.rmtree(out)
    weights, devices = (sum(getattr(row, name) for row in mapped.tensors) for name in ("weights", "devices"))
    crossbars = sum(row.crossbars for row in mapped.tensors)
    verdict = (
        f"{checked.outputs:,} outputs alike" if checked.holds else "; ".join(checked.faults) or "differs"
    )
    verdict = verdict if checked.samples or not checked.holds else "weights alike, not run"
    size = f"{mapped.bytes / 2**20:.1f}"
    seconds = f"{between - begin:.1f} | {end - between:.1f}"
    return (
        f"| `{model.stem}` | {weights:,} | {devices:,} | {crossbars:,} | {seconds} | {size} | "
        f"{peak_gib():.2f} | {verdict} |"
    )


def main() -> None:
    """Map and check the models that are named, or the one that is made."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--weights", type=int)
    parser.add_argument("--device", default="fefet1")
    parser.add_argument("--cell-bits", type=int)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    options = {"device": arguments.device, "cell_bits": arguments.cell_bits}
    print("| model | weights | devices | crossbars | map, s | check, s | MiB | peak, GiB | outputs |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        if arguments.weights:
            begin = time.perf_counter()
            arguments.models.append(make_model(Path(folder) / "chain.onnx", arguments.weights))
            print(f"<!-- model made in {time.perf_counter() - begin:.0f} s -->", flush=True)
        for model in arguments.models:
            print(run(model, Path(folder), options), flush=True)


if __name__ == "__main__":
    main()
