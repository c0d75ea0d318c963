"""What the user asked for: the full specification of a write-verify plan, as it stands in its report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from nvaudit.errors import OptionError
from nvaudit.spec import RunSpec, flag, make_spec, validated

Ranking = Literal["swim", "magnitude", "random"]

SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
TRIALS = 500
IMAGES = 512

_SHARE = Annotated[float, Field(ge=0, le=1)]
_OF_ONE_AUDIT = (
    *("min_kpp", "max_trials", "max_minutes", "all_trials", "yield_at", "tail", "exhaustive", "tolerance"),
    *("attribute", "attribution_trials", "attribution_images", "roughness"),
)


class VerifyOptions(BaseModel):
    """What a plan has beside the options of an audit; each field describes what may be given."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    ranking: Ranking = Field(default="swim", description="one of swim, magnitude, random")
    shares: Annotated[tuple[_SHARE, ...], Field(min_length=1, max_length=100)] = Field(
        default=SHARES, description="1 to 100 numbers from 0 to 1, such as 0.01,0.1,1"
    )
    verify_sigma: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=0.0, description="a finite number, 0 or more"
    )
    verify_terms: tuple[str, ...] = Field(default=(), description="a list of names of noise terms")
    target_kpp: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        default=None, description="a finite number"
    )
    sensitivity_images: Annotated[int, Field(ge=1)] = Field(
        default=IMAGES, description="a whole number, 1 or more"
    )
    sensitivity_data: str | None = Field(default=None, description="a path, in UTF-8")


@dataclass(frozen=True)
class VerifySpec:
    """One plan, complete.

    Attributes
    ----------
    run : RunSpec
        How chips are drawn and scored, as for an audit; every chip sees every sample.
    """

    run: RunSpec
    own: VerifyOptions

    @property
    def percentile(self) -> float:
        """Of the KPP."""
        return self.run.percentiles[0]

    def dump(self) -> dict[str, JsonValue]:
        """Everything, for the report."""
        left_out = set(_OF_ONE_AUDIT)
        return {**self.run.model_dump(mode="json", exclude=left_out), **self.own.model_dump(mode="json")}


def make_verify_spec(**options: Any) -> VerifySpec:
    """Validate options at the edge.

    Parameters
    ----------
    **options
        The fields of :class:`VerifyOptions` and of :class:`nvaudit.spec.RunSpec`.

    Returns
    -------
    VerifySpec
        Its shares ascend, begin with 0 and are all different.

    Raises
    ------
    OptionError
        Naming each option that is wrong, what was found, and what is allowed.
    """
    for name in _OF_ONE_AUDIT:
        if name in options:
            raise OptionError(
                f"{flag(name)}: a write-verify plan runs every chip on every sample and does not take it; "
                "audit with it"
            )
    own = {name: options.pop(name) for name in list(options) if name in VerifyOptions.model_fields}
    chosen = validated(VerifyOptions, own)
    shares = tuple(sorted({0.0, *(share + 0.0 for share in chosen.shares)}))
    run = make_spec(**{"trials": TRIALS, **options, "exhaustive": True, "roughness": False})
    for name, values in (("sigmas", run.sigmas), ("percentiles", run.percentiles)):
        if len(values) > 1:
            raise OptionError(f"{flag(name)}: got {len(values)} values; a write-verify plan has one")
    return VerifySpec(run, chosen.model_copy(update={"shares": shares}))
