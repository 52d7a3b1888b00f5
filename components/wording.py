"""What the page calls the same numbers for one family of models and another."""

from dataclasses import dataclass

from razor.growth import Growth


@dataclass(frozen=True)
class Wording:
    """Words for what the search split measures."""

    knows: str  # "the unedited model ... cat in 98 % of"
    seen: str  # "cat is ... 98 % of"
    search: str  # what the search split counts
    forget: str  # tile over forget_accuracy
    retain: str
    note: str  # one sentence on what the search split's numbers are; "" where they speak for themselves


_WORDING = {
    "clip": Wording("recognises", "recognised in", "search pictures", "Forget accuracy", "Retain accuracy", ""),
    "diffusion": Wording(
        "predicts",
        "still predicted at",
        "search points",
        "Concept still predicted",
        "Retained prompts kept",
        "Counted on the denoiser's predictions at fixed noise levels, which stand in for pictures while growing; "
        "pictures are drawn to confirm a round, and on the third screen.",
    ),
}


def wording(growth: Growth) -> Wording:
    """The words for this growth's family."""
    return _WORDING.get(growth.adapter.family, _WORDING["clip"])
