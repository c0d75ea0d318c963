"""`nvaudit audit --attribute` from end to end."""

import json

import pytest


def test_attribution_is_printed_and_written(command, example, tmp_path):
    """Tables after the audit, costs by name in the report, and the chips and images that were used."""
    path = tmp_path / "r.json"
    ran = command(
        "audit", example, "-d", "pcm", "--time", "1d", "-n", 12, "-j", 0, "--limit", 100, "--quiet",
        "--attribute", "all", "--attribution-trials", 5, "--attribution-images", 40, "-o", path,
    )  # fmt: skip
    assert ran.code == 0
    for part in ("By tensor: ", "By noise term: ", "By class: "):
        assert part in ran.out
    found = json.loads(path.read_text(encoding="utf-8"))
    assert set(found["attribution"]) == {
        "conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight", "programming", "drift", "read",
    }  # fmt: skip
    detail = found["attribution_detail"]
    assert (detail["terms"]["chips"], detail["terms"]["images"], detail["classes"]["images"]) == (5, 40, 40)
    costs = {item["name"]: item["cost"] for item in detail["terms"]["items"]}
    assert costs.items() <= found["attribution"].items()


def test_without_it_there_is_none(command, example, tmp_path):
    """Null in the report."""
    path = tmp_path / "r.json"
    assert command("audit", example, "-n", 3, "-j", 0, "--limit", 20, "-o", path).code == 0
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["attribution"] is found["attribution_detail"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--attribute", "tensor"), "--attribute: got 'tensor'; use tensors, terms, classes or all"),
        (("--attribution-trials", 3), "--attribution-trials is for an attribution"),
        (("--attribution-images", 3), "--attribution-images is for an attribution"),
    ],
)
def test_wrong_options(command, example, arguments, message):
    """Exit code 2, and what to do."""
    ran = command("audit", example, *arguments)
    assert ran.code == 2
    assert message in ran.err


def test_classes_without_labels_are_refused_before_the_audit(command, unlabelled):
    """Not after hours of chips."""
    ran = command("audit", unlabelled, "-n", 100_000, "-j", 0, "--attribute", "classes")
    assert ran.code == 2
    assert "--attribute classes: the data have no class labels" in ran.err
