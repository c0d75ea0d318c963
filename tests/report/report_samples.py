"""Small reports for the tests of nvaudit.report."""

import numpy as np

from nvaudit.report import AuditReport
from nvaudit.report.codes import CodeErrors
from nvaudit.report.gates import decide
from nvaudit.report.mapped import MappedShare, OffProduct
from nvaudit.report.remedy import Remedy, RemedyChips
from nvaudit.report.sections import (
    DataInfo,
    Hashes,
    LossSurface,
    MetricInfo,
    ModelInfo,
    OperatingPointInfo,
    Roughness,
    SweepPoint,
    TensorDecision,
    TrialSummary,
)
from nvaudit.rng import stream
from nvaudit.stats.gate import overall_verdict
from nvaudit.stats.kpp import kpp, yield_at

IMAGES = 450


def accuracies(count: int, mean: float = 0.95, images: int = IMAGES, address: int = 0) -> np.ndarray:
    """Accuracy of each chip on a finite set: chips differ, and images are counted whole."""
    rng = stream(1, "sample report", address)
    prob = np.clip(rng.normal(mean, 0.012, count), 0, 1)
    return np.rint(prob * images) / images


def summary(values: np.ndarray, images: int = IMAGES) -> TrialSummary:
    return TrialSummary(
        count=len(values),
        values=tuple(values.tolist()),
        images_evaluated=len(values) * images // 4,
        images_exhaustive=len(values) * images,
        exact=True,
        mean=float(values.mean()),
        std=float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        min=float(values.min()),
        max=float(values.max()),
    )


def tensors() -> tuple[TensorDecision, ...]:
    conv = {"decision": "mapped", "op": "Conv", "dtype": "float32", "bits": 8, "slices": 4, "scale": 0.001}
    return (
        TensorDecision(
            name="conv1.weight", reason="weight of Conv", shape=(16, 1, 3, 3), devices=576, crossbars=4,
            weight_sigma=0.0213, **conv,
        ),
        TensorDecision(
            name="conv2.weight", reason="weight of Conv", shape=(32, 16, 3, 3), devices=18432, crossbars=4,
            weight_sigma=0.0241, **conv,
        ),
        TensorDecision(
            name="conv1.bias", decision="digital", reason="bias of Conv", op="Conv", shape=(16,),
            dtype="float32",
        ),
        TensorDecision(
            name="conv2.bias", decision="digital", reason="bias of Conv", op="Conv", shape=(32,),
            dtype="float32",
        ),
        TensorDecision(
            name="shape", path="If_12/then_branch", decision="digital",
            reason="not a weight: its values are read as a shape by Reshape, which the digital part computes",
            op="Reshape", shape=(2,), dtype="int64",
        ),
    )  # fmt: skip


def share() -> MappedShare:
    """Two of three layers on the array, 95 of 100 products."""
    return MappedShare(
        products=950, products_total=1000, share_of_products=0.95, weights=96, weights_total=100,
        share_of_weights=0.96, activation_products=12, samples=1, uncounted=(),
        off=(
            OffProduct(
                name="head", op="MatMul", weight="head.weight", products=50, weights=4,
                reason="this form of the operator is not mapped",
            ),
        ),
    )  # fmt: skip


def report(
    values: np.ndarray | None = None, *, higher: bool = True, unit: str = "fraction", **changes: object
) -> AuditReport:
    """A report as an audit would make it; ``changes`` replace top-level keys."""
    values = accuracies(300) if values is None else np.asarray(values, dtype=float)
    threshold = 0.9 if higher else float(np.median(values)) * 2
    gate = (decide(values, threshold, 1, 0.95, higher),)
    content: dict[str, object] = {
        "nvaudit_version": "0.1.0",
        "headline": f"KPP 1 % is {kpp(values, 1, 0.95, higher).value:.4f} on fefet1",
        "label_free": False,
        "verdict": overall_verdict(gate),
        "metric": "top1" if higher else "cross_entropy",
        "metric_info": MetricInfo(higher_is_better=higher, unit=unit, assumed=("class scores on axis 1",)),
        "nominal": 439 / 450 if higher else 0.08,
        "quantised": 438 / 450 if higher else 0.081,
        "kpp": (kpp(values, 1, 0.95, higher),),
        "yields": (yield_at(values, threshold, 0.95, higher),),
        "gate": gate,
        "trials": summary(values),
        "tensors": tensors(),
        "data": DataInfo(
            source="examples/digits_cnn.npz", count=IMAGES, label_kind="class",
            standard_error=0.0073 if unit == "fraction" else None,
            skipped=(("img_7.png", "not an image"),), notes=("uint8 images, scaled by 1/16",),
        ),
        "model": ModelInfo(
            path="examples/digits_cnn.onnx", opset=17, inputs=("x",), outputs=("logits",),
            batching="dynamic batch axis",
        ),
        "device": {"name": "fefet1", "schema_version": 1, "window": None},
        "operating_point": OperatingPointInfo(
            sigma=0.1, sigma_unit="level", time_s=0.0, terms=("programming",)
        ),
        "timing": {"prepare_s": 0.41, "trials_s": 12.3},
        "run": {"seed": 0, "trials": len(values), "sigmas": [0.1]},
        "hashes": Hashes(model="0123456789abcdef" * 4, data="89abcdef01234567" * 4, device="fedcba98" * 8),
    }  # fmt: skip
    return AuditReport(**(content | changes))


def full_report() -> AuditReport:
    """A report with every optional part."""
    points = []
    for index, sigma in enumerate((0.05, 0.1, 0.2)):
        values = accuracies(400, 0.97 - 0.2 * sigma, address=index)
        points.append(
            SweepPoint(
                sigma=sigma, sigma_unit="level",
                kpp=(kpp(values, 1, 0.95, True), kpp(values, 5, 0.95, True)),
                yields=(yield_at(values, 0.9, 0.95, True),),
                gate=(decide(values, 0.9, 1, 0.95, True),), trials=summary(values),
            )
        )  # fmt: skip
    gates = tuple(gate for point in points for gate in point.gate)
    top = points[-1]
    return report(
        np.array(top.trials.values),
        kpp=top.kpp,
        gate=gates,
        verdict=overall_verdict(gates),
        operating_point=OperatingPointInfo(
            sigma=0.2, sigma_unit="level", time_s=86400.0, terms=("programming",)
        ),
        sweep=tuple(points),
        roughness=Roughness(
            value=0.00123,
            spread=0.0002,
            pairs=4,
            grid=3,
            span=0.05,
            images=500,
            batch_norm="stored",
            loss="cross_entropy",
        ),
        landscape=LossSurface(
            roughness=0.0012,
            axis=(-0.05, 0.0, 0.05),
            losses=((0.4, 0.2, 0.5), (0.3, 0.1, 0.2), (0.6, 0.3, 0.4)),
        ),
        remedy=Remedy(
            sigma=0.2,
            code="8,4,2,1",
            encoding="sign_magnitude",
            devices_per_weight=4,
            errors=CodeErrors(total=0.0243, rounding=0.0089, noise=0.0226),
            slices=CodeErrors(total=0.0482, rounding=0.0011, noise=0.0482),
            chips=RemedyChips(
                values=(0.95, 0.91, 0.89, 0.94), samples=450, mean=0.9225, worst=0.89, missed=1
            ),
            why_not=None,
        ),
        attribution={"conv1.weight": -0.012, "conv2.weight": -0.031, "programming": -0.04},
        events=("worker 2 stopped (killed by signal 9) during trials 17 to 32; they were run again",),
        notes=("the top slice is narrower: 2 does not divide 7",),
    )
