"""How noise terms that are added to a profile are written on the command line."""

from __future__ import annotations

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?"
_UNIT = "level|full_scale|relative|us|na"

STUCK_AT = rf"^({_NUMBER}),({_NUMBER})$"
READ_NOISE = rf"^({_NUMBER})({_UNIT})?$"
CORRELATED = rf"^({_NUMBER})({_UNIT})?(?::(chip|tensor|([1-9]\d{{0,5}})x([1-9]\d{{0,5}})))?$"
"""Regular expressions whose groups are the parts."""

STUCK_AT_WANTED = "P_LOW,P_HIGH, two probabilities such as 0.001,0.0005"
READ_NOISE_WANTED = "S with an optional unit (level, full_scale, relative, us, na), e.g. 0.01 or 0.02relative"
CORRELATED_WANTED = (
    "S with an optional unit and an optional scope (chip, tensor, or a tile's ROWSxCOLUMNS), such as 0.02 or "
    "0.1level:128x128"
)

DEFAULT_UNIT = "full_scale"
