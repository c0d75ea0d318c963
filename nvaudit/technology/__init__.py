"""Technologies: what the circuits around the devices take, as profiles."""

from nvaudit.technology.load import (
    change_technology,
    load_technology,
    parse_technology,
    quantities,
    technology_names,
)
from nvaudit.technology.profile import InputMode, Technology
from nvaudit.technology.quantity import Quantity

__all__ = [
    "InputMode",
    "Quantity",
    "Technology",
    "change_technology",
    "load_technology",
    "parse_technology",
    "quantities",
    "technology_names",
]
