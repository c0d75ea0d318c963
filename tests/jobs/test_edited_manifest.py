"""A manifest that was edited is found: by its hash wherever it is read, by its content in `map --check`."""

import copy
import json
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nvaudit.errors import DataError, NvauditError
from nvaudit.jobs.deploying import MapSpec, map_model
from nvaudit.jobs.reassembling import check_mapping
from nvaudit.mapping.manifest import Manifest, content_digest, manifest_text, read_manifest

MAY_BE_CHANGED = {"model.path", "plan"}
"""Where files lie; docs/deploy.md names both."""

SAYS_NOTHING_OF_THE_MAPPING = {"nvaudit_version", "run.seed"}
"""What the model and the profile cannot tell; found by the hash alone."""


@pytest.fixture(scope="module")
def mapping(tmp_path_factory):
    """Two products on crossbars of 4 x 4 devices, written with a plan and scales for each channel."""
    folder = tmp_path_factory.mktemp("edited")
    generator = np.random.default_rng(3)
    weights = [
        numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("first", (5, 3)), ("second", (3, 2)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"], "one"),
        helper.make_node("MatMul", ["h", "second"], ["y"], "two"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size])
            for name, size in (("x", 5), ("y", 2))]  # fmt: skip
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "m.onnx")
    np.savez(folder / "plan.npz", first=np.eye(5, 3) > 0, second=np.zeros((3, 2), bool))
    spec = MapSpec.validated(
        {"model": folder / "m.onnx", "device": "rram_wan2022_1d", "crossbar": (4, 4), "scale": "per_channel",
         "verify_plan": str(folder / "plan.npz"), "seed": 5}
    )  # fmt: skip
    map_model(spec, folder / "mapping")
    return folder / "mapping"


def leaves(value, key=()):
    """Every number, word and null of a manifest, with its place."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not isinstance(value, dict | list):
        yield key, value
    for name, part in parts:
        yield from leaves(part, (*key, name))


def edited(manifest, key, value):
    """A manifest with one leaf changed to something else of its kind."""
    made = copy.deepcopy(manifest)
    at = made
    for name in key[:-1]:
        at = at[name]
    if isinstance(value, bool):
        at[key[-1]] = not value
    elif isinstance(value, int):
        at[key[-1]] = value + 1
    elif isinstance(value, float):
        at[key[-1]] = value * 1.25 + 0.125
    elif value is None:
        at[key[-1]] = "else"
    else:
        at[key[-1]] = value.translate({ord("a"): "b", ord("s"): "t", ord("0"): "1"}) + (
            "" if re.fullmatch("[0-9a-f]{64}", value) else "_"
        )
    return made


def test_every_edited_leaf_of_a_manifest_is_refused_but_where_files_lie(mapping, tmp_path):
    """Whatever reads the manifest (audit, cost, calibrate, devices fit) finds each change by its hash."""
    manifest = json.loads((mapping / "manifest.json").read_text())
    every = list(leaves(manifest))
    assert len(every) > 150
    for key, value in every:
        (tmp_path / "manifest.json").write_text(json.dumps(edited(manifest, key, value)))
        if ".".join(map(str, key)) in MAY_BE_CHANGED:
            read_manifest(tmp_path)
            continue
        with pytest.raises(DataError, match=r"was edited|make the mapping anew"):
            read_manifest(tmp_path)


def test_a_check_finds_every_edit_by_what_the_mapping_is(mapping):
    """Even with the hash made anew: each key that says something of the mapping is compared with it."""
    original = (mapping / "manifest.json").read_text()
    manifest = json.loads(original)
    assert check_mapping(mapping).check.holds
    kinds = {}
    for key, value in leaves(manifest):
        kinds.setdefault(re.sub(r"\.\d+", "", ".".join(map(str, key))), (key, value))
    left = set()
    try:
        for kind, (key, value) in kinds.items():
            text = json.dumps(edited(manifest, key, value))
            try:
                made = Manifest.model_validate_json(text)
                made = made.model_copy(update={"sha256": content_digest(made)})
                (mapping / "manifest.json").write_text(manifest_text(made))
                found = not check_mapping(mapping).check.holds
            except (NvauditError, ValueError):
                found = True
            if not found:
                left.add(kind)
    finally:
        (mapping / "manifest.json").write_text(original)
    # A model that is not where the manifest says is not found; the hash was made anew.
    assert left == (MAY_BE_CHANGED - {"model.path"}) | SAYS_NOTHING_OF_THE_MAPPING | {"sha256"}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda m: m["window"].update(max=80.0), "window.max: 80.0; it should be 40.0"),
        (lambda m: m["order"].reverse(), "order.0."),
        (lambda m: m["tensors"][0]["matrix"].reverse(), "tensors.0.matrix.0: 3; it should be 5"),
        (lambda m: m.update(sigma=3.0), "sigma: 3.0; it should be 1.0"),
        (lambda m: m.update(crossbar=[8, 4]), "crossbar.0: 8; it should be 4"),
        (lambda m: m["device"]["noise"].pop(), "device.noise: ["),
        (lambda m: m["tensors"][1].update(kernel=9), "tensors.1.kernel: 9; it should be 1"),
        (lambda m: m["digital"].append({"name": "b", "reason": "?"}), "digital: [{'name': 'b'"),
    ],
)
def test_a_check_names_the_key_and_both_values(command, mapping, edit, said):
    """Exit 1, the key, what stands there, and what should."""
    path = mapping / "manifest.json"
    original = path.read_text()
    manifest = json.loads(original)
    edit(manifest)
    path.write_text(json.dumps(manifest))
    try:
        ran = command("map", "--check", mapping, "-q")
    finally:
        path.write_text(original)
    assert ran.code == 1
    assert said in " ".join(ran.out.split())


@pytest.mark.parametrize(
    "words", [("audit", "--no-roughness", "-n", 2), ("cost", "-t", "cmos_22nm_neurosim")]
)
def test_chips_with_an_edited_manifest_are_refused(command, example, tmp_path, words):
    """The window of chips decides what their conductances mean: exit 2, and nothing is written."""
    chips, report = tmp_path / "chips", tmp_path / "r.json"
    made = ("--device", "rram_wan2022_1d", "--simulate", 1)
    assert command("map", example, *made, "-o", chips, "-q").code == 0
    manifest = json.loads((chips / "manifest.json").read_text())
    manifest["window"]["max"] = 80.0
    (chips / "manifest.json").write_text(json.dumps(manifest))
    ran = command(words[0], example, "--chip", chips, *words[1:], "-q", "--report", report)
    assert (ran.code, report.exists()) == (2, False)
    assert "manifest.json: was edited after it was written" in ran.err


def test_a_plan_of_another_length_is_found(command, mapping):
    """A mask of what to verify that was changed in the arrays is found by the count and the hash."""
    from nvaudit.mapping.array_files import read_arrays, write_arrays

    path = next(iter(sorted(mapping.glob("arrays/*/*.npz"))))
    kept = path.read_bytes()
    arrays = read_arrays(path, (4, 4))
    row, column = np.argwhere(arrays["used"] & ~arrays["verify"])[0]
    first = np.argwhere(arrays["verify"])[0]
    arrays["verify"] = arrays["verify"].copy()
    arrays["verify"][row, column], arrays["verify"][tuple(first)] = True, False
    write_arrays(path.with_suffix(""), arrays, "npz")
    try:
        ran = command("map", "--check", mapping, "-q")
    finally:
        path.write_bytes(kept)
    assert ran.code == 1
    assert "tensors.0.crossbars.0.sha256" in " ".join(ran.out.split())
