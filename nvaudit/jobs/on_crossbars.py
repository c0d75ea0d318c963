"""A model on crossbars, tensor after tensor: what a mapping writes, and its check compares with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nvaudit.device import DeviceProfile, OperatingPoint
from nvaudit.errors import DataError, ModelError, OptionError
from nvaudit.mapping.manifest import Manifest
from nvaudit.mapping.places import Geometry
from nvaudit.mapping.select import Decision, select
from nvaudit.mapping.tiling import Crossbar
from nvaudit.model import LoadedModel, Weight, constants, load_model
from nvaudit.perturb.crossbar import WeightOnCrossbars
from nvaudit.perturb.prepare import map_tensor
from nvaudit.perturb.settle_codes import find_mapping, notes_on_codes, settle_codes
from nvaudit.perturb.workload import TensorFile
from nvaudit.session import Session, prepare, settle_device, settle_placement
from nvaudit.spec import RunSpec


@dataclass(frozen=True)
class OnCrossbars:
    """A model on crossbars, tensor after tensor.

    Attributes
    ----------
    layers : mapping of str to WeightOnCrossbars
        The crossbars with converters of each weight; empty without them.
    session : Session or None
        With converters, whose ranges need samples.
    """

    spec: RunSpec
    loaded: LoadedModel
    profile: DeviceProfile
    point: OperatingPoint
    decisions: tuple[Decision, ...]
    notes: tuple[str, ...]
    folder: Path
    layers: Mapping[str, WeightOnCrossbars] = field(default_factory=dict)
    session: Session | None = None
    _how: Any = None

    @property
    def weights(self) -> list[Weight]:
        """Those on the array."""
        return [d.constant.weight for d in self.decisions if d.mapped and d.constant.weight is not None]

    @property
    def size(self) -> Crossbar:
        """Of a crossbar."""
        return Crossbar(*self.spec.crossbar)

    def tensors(self) -> Iterator[tuple[Weight, TensorFile]]:
        """Give one mapped tensor after the other; its codes are gone when the next is asked for."""
        if self.session is not None:
            yield from zip(self.weights, self.session.workload.tensors, strict=True)
            return
        for index, weight in enumerate(self.weights):
            tensor = map_tensor(weight, self.profile, self._how, self.folder, index)
            yield weight, tensor
            Path(tensor.code.path).unlink(missing_ok=True)

    def geometry(self, tensor: TensorFile, shape: tuple[int, ...]) -> Geometry:
        """Where the devices of a tensor lie."""
        return geometry_of(tensor, shape, self.size, self.layers.get(tensor.key))


def geometry_of(
    tensor: TensorFile, shape: tuple[int, ...], size: Crossbar, layer: WeightOnCrossbars | None
) -> Geometry:
    """Where the devices of a tensor lie; with converters, cut as these need it."""
    split = None if layer is None or layer.split.reason is not None else layer.split
    starts = None if split is None else [block.rows[0] for block in split.blocks]
    return Geometry.of(shape, tensor.lines, tensor.array, size, starts)


def settle_mapping(spec: RunSpec, folder: Path) -> OnCrossbars:
    """Decide how a model lies on crossbars; data are read only where converters need ranges.

    Raises
    ------
    NvauditError
        If anything about the input is wrong.
    """
    if len(spec.sigmas or ()) > 1:
        raise OptionError("--sigma: a mapping is of one operating point; give one sigma")
    if spec.adc_bits is not None:
        session = prepare(spec, folder)
        assert session.crossbar is not None
        layers = {layer.split.key: layer for layer in session.crossbar.layers}
        return OnCrossbars(
            session.spec, session.loaded, session.profile, session.points[0], session.decisions,
            tuple(session.notes), folder, layers, session,
        )  # fmt: skip
    profile, points = settle_device(spec)
    loaded = load_model(spec.model, spec.seed)
    spec, notes = find_mapping(spec, loaded)
    decisions = select(constants(loaded), spec.layers, spec.digital)
    if not any(decision.mapped for decision in decisions):
        raise ModelError(
            f"{loaded.path}: no tensor would be mapped to the array; `nvaudit inspect` lists every tensor "
            "with its reason"
        )
    codes = settle_codes(spec, points, decisions)
    notes += notes_on_codes(codes, decisions)
    how = settle_placement(spec, profile, codes)
    return OnCrossbars(spec, loaded, profile, points[0], decisions, tuple(notes), folder, _how=how)


def check_hashes(manifest: Manifest, where: Path, model: str, device: str) -> None:
    """Refuse a manifest whose model or device has other contents.

    Raises
    ------
    DataError
        Naming which, with both hashes.
    """
    for what, wanted, there in (
        ("model", manifest.model.sha256, model),
        ("device", manifest.device_sha256, device),
    ):
        if wanted != there:
            raise DataError(
                f"{where}: was made for another {what} (SHA-256 {wanted[:12]}…, this one has {there[:12]}…); "
                "give that one, or map this one"
            )
