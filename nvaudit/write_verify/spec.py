"""What the user asked for: the full specification of a write-verify plan, as it stands in its report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue

from nvaudit.declare import Option, Options
from nvaudit.errors import OptionError
from nvaudit.option_texts import read_numbers, write_numbers
from nvaudit.options import Count, Encodable, Finite, NotNegative, RoughnessOptions, TimeOptions, path_option
from nvaudit.spec import (
    BaselineOptions,
    EffortOptions,
    QuestionOptions,
    RaceOptions,
    RunSpec,
    flag,
    make_spec,
)

Ranking = Literal["swim", "magnitude", "random"]

SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
TRIALS = 500
IMAGES = 512

_OF_ONE_AUDIT = (
    *(BaselineOptions, EffortOptions, RaceOptions, QuestionOptions, RoughnessOptions, TimeOptions),
)
OF_ONE_AUDIT = ("min_kpp", *(name for part in _OF_ONE_AUDIT for name in part.model_fields))
"""Options of an audit that a plan does not take: every chip of it sees every sample."""


class VerifyOptions(Options):
    """What a plan has beside the options of an audit."""

    title: ClassVar[str] = "Plan"

    ranking: Annotated[
        Ranking,
        Option(
            "Which weights come first: swim: expected increase of the loss, second derivative × variance "
            "(needs torch); magnitude: the largest; random."
        ),
    ] = "swim"
    shares: Annotated[
        tuple[Annotated[float, Field(ge=0, le=1)], ...],
        Field(min_length=1, max_length=100),
        Option(
            "Shares of the weights that are verified in turn; 0 is always among them.",
            metavar="S,S,…",
            wanted="1 to 100 numbers from 0 to 1, such as 0.01,0.1,1",
            read=read_numbers,
            write=write_numbers,
        ),
    ] = SHARES
    target_kpp: Annotated[
        Finite | None,
        Option(
            "Find the smallest share whose KPP reaches T; exit code 1 if none does.",
            unset="the smallest of --shares that loses at most a point against the largest",
            metavar="T",
        ),
    ] = None
    verify_sigma: Annotated[
        NotNegative, Option("Spread that verifying leaves, in the unit of --sigma.", metavar="S")
    ] = 0.0
    verify_terms: Annotated[
        tuple[str, ...],
        Option(
            "Noise term that verifying reduces; repeatable.",
            unset="all normal, lognormal and table terms",
            name="--verify-term",
            metavar="TERM",
            wanted="a list of names of noise terms",
        ),
    ] = ()
    sensitivity_images: Annotated[Count, Option("Samples that the swim ranking looks at.", metavar="N")] = (
        IMAGES
    )
    sensitivity_data: Annotated[
        Encodable | None,
        path_option("Other samples for the swim ranking.", unset="from the evaluation data"),
    ] = None


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
        return {
            **self.run.model_dump(mode="json", exclude=set(OF_ONE_AUDIT)),
            **self.own.model_dump(mode="json"),
        }


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
    for name in OF_ONE_AUDIT:
        if name in options:
            raise OptionError(
                f"{flag(name)}: a write-verify plan runs every chip on every sample and does not take it; "
                "audit with it"
            )
    own = {name: options.pop(name) for name in list(options) if name in VerifyOptions.model_fields}
    chosen = VerifyOptions.validated(own)
    shares = tuple(sorted({0.0, *(share + 0.0 for share in chosen.shares)}))
    run = make_spec(**{"trials": TRIALS, **options, "exhaustive": True, "roughness": False})
    for name, values in (("sigmas", run.sigmas), ("percentiles", run.percentiles)):
        if len(values) > 1:
            raise OptionError(f"{flag(name)}: got {len(values)} values; a write-verify plan has one")
    return VerifySpec(run, chosen.model_copy(update={"shares": shares}))
