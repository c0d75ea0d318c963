"""Claims: with the default span and stored batch norm the roughness of a ResNet-20 is of the paper's size.

For each span and treatment of batch norm: mean over direction pairs, its standard error, and the spread of
the pairs in units of the mean. With further models, their roughness at the default settings.

    python benchmarks/roughness.py cifar_resnet20.onnx --data cifar_resnet20.npz
    python benchmarks/roughness.py cifar_resnet20.onnx --data cifar_resnet20.npz --pairs 24 --workers 2
"""

import argparse
import math
from pathlib import Path

from nvaudit import landscape

SETTINGS = (
    *(("stored", span) for span in (0.2, 0.25, 0.3, 0.4, 0.5, 1.0)),
    *(("recalibrated", span) for span in (0.5, 0.7, 1.0)),
)


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--grid", type=int, default=9)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    options = {name: getattr(given, name) for name in ("grid", "pairs", "images", "workers")}
    print(f"{given.model.stem}, {options}\n")
    print("| batch norm | span | roughness ×10⁻³ | spread / mean | lowest, highest pair | seconds |")
    print("|---|---|---|---|---|---|")
    for batch_norm, span in SETTINGS:
        report = landscape(given.model, given.data, span=span, batch_norm=batch_norm, **options)
        found = report.roughness
        pairs = [1e3 * fit.roughness for fit in report.fits]
        error = 1e3 * (found.spread or 0) / math.sqrt(found.pairs)
        print(
            f"| {batch_norm} | {span:g} | {1e3 * found.value:.3g} ± {error:.2g} | "
            f"{(found.spread or 0) / found.value:.2f} | {min(pairs):.3g}, {max(pairs):.3g} | "
            f"{report.timing['total']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
