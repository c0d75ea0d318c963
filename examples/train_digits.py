"""Train the small digits network of this folder and write it as ONNX, with its evaluation data.

This script is for contributors; using nvaudit needs neither torch nor scikit-learn. In an environment
of its own::

    pip install 'torch==2.13.0' scikit-learn onnx onnxruntime
    python examples/train_digits.py

It writes ``digits_cnn.onnx`` and ``digits_cnn.npz`` beside itself (or into ``--out``). The training is
plain: no noise, no augmentation, no choice by the test images. Two runs with the same versions on the
same kind of machine give the same bytes; another CPU may round differently.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SEED = 0
TEST_IMAGES = 597
EPOCHS = 40
BATCH = 32
LEARNING_RATE = 5e-3  # this and the decay: best of a few by cross-validation on the training images
WEIGHT_DECAY = 0.1
NAME = "digits_cnn"


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Split scikit-learn's digits, class by class in proportion.

    Returns
    -------
    tuple of ndarray
        Training images, float32, shape (1200, 1, 8, 8), in 0 … 1; test images, shape (597, 1, 8, 8);
        training labels and test labels, int64.
    """
    bunch = load_digits()
    image = (bunch.images / 16.0).astype(np.float32)[:, None]
    label = bunch.target.astype(np.int64)
    split = train_test_split(image, label, test_size=TEST_IMAGES, stratify=label, random_state=SEED)
    return split[0], split[1], split[2], split[3]


def network() -> torch.nn.Sequential:
    """Two convolutions and two fully connected layers, 18,346 parameters."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(256, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 10),
    )


def train(image: np.ndarray, label: np.ndarray) -> dict[str, np.ndarray]:
    """Train by AdamW with a cosine schedule; return the parameters by their ONNX names.

    Parameters
    ----------
    image : ndarray, float32, shape (images, 1, 8, 8), 0 … 1
        The training images.
    label : ndarray, int64, shape (images,)
        Their digits.

    Returns
    -------
    dict of str to ndarray, float32
        ``conv1.weight``, ``conv1.bias``, … in the layout of torch.
    """
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    x, y = torch.from_numpy(image), torch.from_numpy(label)
    net = network().train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimiser.step()
        schedule.step()
    layers = {"conv1": net[0], "conv2": net[2], "fc1": net[6], "fc2": net[8]}
    return {
        f"{layer}.{kind}": getattr(module, kind).detach().numpy()
        for layer, module in layers.items()
        for kind in ("weight", "bias")
    }


def export(parameters: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Write the network as an ONNX graph with a free batch size.

    Parameters
    ----------
    parameters : dict of str to ndarray, float32
        The output of :func:`train`.

    Returns
    -------
    onnx.ModelProto
        Opset 17, IR version 8; input ``image`` [N, 1, 8, 8], output ``logits`` [N, 10].
    """

    def node(op: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
        return helper.make_node(op, inputs, [output], name=output, **attributes)

    def conv(name: str, source: str) -> onnx.NodeProto:
        inputs = [source, f"{name}.weight", f"{name}.bias"]
        return node("Conv", inputs, name, kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def dense(name: str, source: str, output: str) -> onnx.NodeProto:
        return node("Gemm", [source, f"{name}.weight", f"{name}.bias"], output, transB=1)

    nodes = [
        conv("conv1", "image"),
        node("Relu", ["conv1"], "relu1"),
        conv("conv2", "relu1"),
        node("Relu", ["conv2"], "relu2"),
        node("MaxPool", ["relu2"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["pool"], "flat"),
        dense("fc1", "flat", "fc1"),
        node("Relu", ["fc1"], "relu3"),
        dense("fc2", "relu3", "logits"),
    ]
    graph = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(value, name) for name, value in parameters.items()],
        doc_string="Handwritten digits, 8x8 grey levels in 0 … 1; ten class scores (logits).",
    )
    model = helper.make_model(
        graph,
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17)],
        producer_name="examples/train_digits.py",
        doc_string="A small convolutional network for scikit-learn's digits, trained plainly (no noise).",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def correct(model: onnx.ModelProto, image: np.ndarray, label: np.ndarray) -> int:
    """Count the images that ONNX Runtime classifies correctly."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": image})
    return int((logits.argmax(axis=1) == label).sum())


def main() -> None:
    """Train, export, check with ONNX Runtime, and write both files."""
    parser = argparse.ArgumentParser(description="Train the example network and write it with its data.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write into")
    folder: Path = parser.parse_args().out
    train_image, test_image, train_label, test_label = digits()
    model = export(train(train_image, train_label))
    hits = {
        "train": correct(model, train_image, train_label),
        "test": correct(model, test_image, test_label),
    }
    facts = {
        "dataset": "scikit-learn load_digits, 1797 images of 8x8, divided by 16",
        "split": f"stratified, random_state {SEED}: {len(train_label)} to train, {len(test_label)} to test",
        "training": f"AdamW {LEARNING_RATE} with cosine schedule, weight decay {WEIGHT_DECAY}, "
        f"{EPOCHS} epochs, batch {BATCH}, seed {SEED}, no noise, no augmentation",
        "train_correct": f"{hits['train']}/{len(train_label)}",
        "test_correct": f"{hits['test']}/{len(test_label)}",
    }
    helper.set_model_props(model, facts)
    (folder / f"{NAME}.onnx").write_bytes(model.SerializeToString(deterministic=True))
    np.savez_compressed(folder / f"{NAME}.npz", image=test_image, y=test_label)
    for key, value in facts.items():
        print(f"{key}: {value}")
    print(f"test accuracy: {100 * hits['test'] / len(test_label):.2f} %")


if __name__ == "__main__":
    main()
