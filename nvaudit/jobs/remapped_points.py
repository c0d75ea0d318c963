"""Models that an exploration remaps before it audits them: one for all points whose weights lie alike."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from nvaudit.files import forget_input
from nvaudit.jobs.remapping import run_remap
from nvaudit.mapping.mapping_file import mapping_beside
from nvaudit.options import ConverterOptions
from nvaudit.perturb.schedule import Progress, labelled
from nvaudit.remapping.spec import RemapSpec, make_remap_spec
from nvaudit.spec import RunSpec
from nvaudit.technology_options import TechnologyOptions

_NOT_OF_WEIGHTS = (*ConverterOptions.model_fields, *TechnologyOptions.model_fields, "trials")


@dataclass
class RemappedPoints:
    """Remaps models as points ask for them.

    Attributes
    ----------
    folder : Path
        What is there already, of an earlier run, is not made again.
    calibration : str or None
        Data to calibrate on; None: a part of the audit's.
    """

    folder: Path
    calibration: str | None
    progress: Progress
    _made: dict[str, RunSpec] = field(default_factory=dict)

    def point(self, spec: RunSpec) -> RunSpec:
        """Give the audit of a point with its remapped model; converters are those of the point."""
        same = {
            name: value
            for name, value in spec.model_dump().items()
            if name in RemapSpec.model_fields and name not in _NOT_OF_WEIGHTS
        }
        remap = make_remap_spec(**same, calibration_data=self.calibration, trials=0)
        text = json.dumps(remap.model_dump(mode="json", exclude={"workers", "provider"}), sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:12]
        if name not in self._made:
            self._made[name] = self._remapped(spec, remap, self.folder / f"remapped-{name}.onnx")
        made = self._made[name]
        changes = {key: getattr(made, key) for key in ("model", "data", "mapping", "code", "encoding")}
        return spec.model_copy(update=changes)

    def _remapped(self, spec: RunSpec, remap: RemapSpec, output: Path) -> RunSpec:
        if not output.is_file():
            partial = output.with_suffix(".partial.onnx")
            label = f"remapped model {len(self._made) + 1}"
            run_remap(remap, partial, labelled(self.progress, label))
            if mapping_beside(partial).is_file():
                mapping_beside(partial).replace(mapping_beside(output))
            forget_input(partial)
            partial.replace(output)
        data = spec.data
        if data is None and Path(spec.model).with_suffix(".npz").is_file():
            data = str(Path(spec.model).with_suffix(".npz"))
        changes = {"model": str(output), "data": data, "mapping": None}
        if mapping_beside(output).is_file():  # the file says all of the mapping, and is found by itself
            changes |= {"code": None, "encoding": None}
        return spec.model_copy(update=changes)
