"""Reading what a browser event carries. Anyone can send an event, so nothing about it is taken on trust."""

from collections.abc import Mapping
from typing import Any


def field(evt_data: Any, name: str) -> Any:
    """One field of a gr.EventData, or of the mapping inside it; None where it has none."""
    if isinstance(evt_data, Mapping):
        return evt_data.get(name)
    try:
        return getattr(evt_data, name, None)
    except TypeError:  # the event carried no mapping at all
        return None


def whole_number(value: Any) -> bool:
    """An int and not a bool, which Python counts among the ints."""
    return isinstance(value, int) and not isinstance(value, bool)
