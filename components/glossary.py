"""What the words on the page mean: one or two plain sentences each, shown on hover and focus."""

import json
from html import escape

from components.theme import script

TERMS: dict[str, tuple[str, str]] = {
    "phi": (
        "Phi",
        "How promising a unit is as a place to forget: pressure times separation to the power alpha. "
        "High where the forget set pulls hard without pulling against what should be kept.",
    ),
    "pressure": (
        "Pressure",
        "Length of the forget gradient in a unit, divided by the length of its weights. "
        "High where a small relative change moves the forget set most.",
    ),
    "separation": (
        "Separation",
        "1 minus the cosine between the forget and the retain gradient. "
        "0: forgetting here hurts what is kept; 1: the two are unrelated; 2: forgetting here helps it.",
    ),
    "ratio": (
        "Forget / retain ratio",
        "Length of the forget gradient divided by that of the retain gradient. "
        "Above 1, the unit matters more to the forget set than to the retain set.",
    ),
    "tau": (
        "Tau",
        "The share of units, counted from the lowest phi, that may not join the edit set. "
        "At 0.5 only the upper half may.",
    ),
    "alpha": (
        "Alpha",
        "How much separation counts in phi. At 0 the retain set is ignored; higher values avoid conflicts more.",
    ),
    "rho": (
        "Rho",
        "How strongly each step pushes towards forgetting, from 0 to 1, next to the part of it that keeps the rest.",
    ),
    "forget loss": (
        "Forget loss",
        "What the edit drives up on the forget set. In a model that answers: how unlikely the name is as the answer, "
        "or how far what is read of a picture is from what it was.",
    ),
    "rank": ("Rank", "The place of a unit when all are sorted by phi; 1 is the highest."),
    "unit": (
        "Unit",
        "A part of the model that is scored and edited on its own: an attention head, an MLP or a whole layer.",
    ),
    "head": (
        "Attention head",
        "One of several parts of a layer that each decide what to look at. "
        "It owns slices of the layer's weights, so it can be edited alone.",
    ),
    "mlp": ("MLP", "The part of a layer after attention, which works on each position by itself."),
    "layer": ("Layer", "One block of the model: its attention heads and its MLP together."),
    "tower": ("Tower", "One half of the model: the image tower reads pictures, the text tower reads captions."),
    "edit set": ("Edit set", "The units that are edited. It starts small and grows round by round."),
    "growth round": (
        "Growth round",
        "Takes the best new units into the edit set and moves the whole set in small steps. "
        "It is kept only if that brings the goal nearer.",
    ),
    "forget set": ("Forget set", "The examples of what the model should no longer recognise, or draw."),
    "retain set": ("Retain set", "The examples of everything the model should go on knowing."),
    "neighbour": (
        "Neighbour",
        "A class close to the forgotten one. Neighbours suffer first when an edit goes too far.",
    ),
    "forget accuracy": (
        "Forget accuracy",
        "Share of forget pictures still given the forgotten class. An edit should bring it down to chance or below.",
    ),
    "retain accuracy": ("Retain accuracy", "Share of right answers on retain pictures. An edit should leave it alone."),
    "retrieval stability": (
        "Retrieval stability",
        "How often a retain picture still finds its caption first, compared with the unedited model. "
        "100 % is unchanged.",
    ),
    "unlearning accuracy": (
        "Unlearning accuracy (UA)",
        "Of pictures drawn from prompts for the concept, the share in which the judge no longer sees it. "
        "An edit should bring it up to 100 %.",
    ),
    "in-domain retain accuracy": (
        "In-domain retain accuracy (IRA)",
        "Of pictures drawn of other things of the same kind, the share in which the judge sees what was asked for. "
        "An edit should leave it alone.",
    ),
    "cross-domain retain accuracy": (
        "Cross-domain retain accuracy (CRA)",
        "Share of right answers about what else the drawn pictures should show, such as the object where a style is "
        "forgotten. An edit should leave it alone.",
    ),
    "concept still predicted": (
        "Concept still predicted",
        "Share of the points at which the denoiser still leans towards the concept; how far it may is checked on a few "
        "drawn pictures. The unedited model is at 100 % by definition.",
    ),
    "retained prompts kept": (
        "Retained prompts kept",
        "Share of the points at which the prediction for a prompt to keep is nearer to the unedited model's for that "
        "prompt than for a similar one.",
    ),
    "prediction stability": (
        "Prediction stability",
        "How little predictions for prompts to keep have moved. 100 % is not at all, 0 % as far as another prompt "
        "would move them.",
    ),
    "search point": (
        "Search point",
        "A picture of the search split with noise added. What the denoiser predicts there stands in for a drawn "
        "picture, which would take far longer.",
    ),
    "judge": (
        "Judge",
        "A model that was never edited and says what a drawn picture shows. A CLIP in its place only guesses, since it "
        "names a class whatever there is to see.",
    ),
    "draw instead": (
        "Draw instead",
        "What the edited model should draw where it was asked for the concept, such as the kind of thing in general. "
        "Empty leaves the concept out of the prompt.",
    ),
    "search split": (
        "Search split",
        "Pictures used to choose steps and to decide when to stop. Numbers on them are a little too good.",
    ),
    "test split": (
        "Test split",
        "Pictures that nothing was chosen by. Final numbers come from these.",
    ),
    "interval": (
        "95 % interval",
        "The range the true value plausibly lies in, given how few pictures were counted. More pictures narrow it.",
    ),
    "strength": ("Strength", "How much of the edit is applied: 0 % is the unedited model, 100 % the edit itself."),
    "overshoot": (
        "Overshoot",
        "Applying more than 100 % of the edit. It may forget more, and disturbs more of what should be kept.",
    ),
    "lock": ("Lock", "Marks a unit that must be edited: growth takes it in first, whatever its phi."),
    "ban": ("Ban", "Marks a unit that must not be edited: growth passes it over, whatever its phi."),
    "branch": (
        "Branch",
        "One line of rounds from the unedited model to its latest round. Try something else on a new branch and "
        "the old one stays as it is.",
    ),
    "estimate": (
        "Estimate",
        "A value predicted from gradients or other measurements without running the edited model. "
        "Measure it before relying on it.",
    ),
    "bootstrap": (
        "Bootstrap",
        "Repeats a calculation on examples drawn anew from the same set, to see how much the result depends on "
        "which ones were drawn.",
    ),
    "attribution": (
        "Attribution",
        "How much each part of an input or of the model contributed to one answer.",
    ),
    "integrated gradients": (
        "Integrated gradients",
        "An attribution that adds up gradients along the way from a neutral starting point to the actual input. "
        "The parts sum to the change in the answer.",
    ),
    "ablation": ("Ablation", "Switching a part of the model off to see what changes without it."),
    "drift": (
        "Drift",
        "How far the edited model's outputs on what it should keep have moved from the unedited model's.",
    ),
    "chance": ("Chance", "The accuracy of guessing: one divided by the number of classes."),
    "patch": ("Patch", "The edit as a file: what to add to which weights. Taking it off restores the model exactly."),
    "conflict": (
        "Conflict",
        "The forget and retain gradients point the same way, so that forgetting here also hurts what should be kept.",
    ),
    "spearman": (
        "Rank correlation (Spearman)",
        "How alike two orderings are: 1 is the same order, 0 unrelated, \u22121 reversed.",
    ),
    "trial step": (
        "Trial step",
        "One small move that was measured during a round. The round keeps the best one met, or none.",
    ),
}

# Other ways the page writes the same words.
ALIASES: dict[str, str] = {
    "rank correlation": "spearman",
    "attention head": "head",
    "forget / retain": "ratio",
    "forget/retain": "ratio",
    "95 % interval": "interval",
    "neighbor": "neighbour",
    "nearest neighbours": "neighbour",
    "search points": "search point",
    "rounds": "growth round",
}


def term(word: str, text: str | None = None) -> str:
    """A word of TERMS as HTML that explains itself on hover and focus.

    Args:
        text: what to show in its place; None shows the word.

    Raises:
        ValueError: the glossary does not have the word.
    """
    if word not in TERMS:
        raise ValueError(f"The glossary has no {word!r}.")
    return f'<span class="term" data-term="{escape(word)}" tabindex="0">{escape(word if text is None else text)}</span>'


def head() -> str:
    """The script for the page's head that explains every term on the page."""
    return f"<script>\n(() => {{\nconst TERMS = {_json(TERMS)};\nconst ALIASES = {_json(ALIASES)};\n" + (
        script("glossary.js") + "})();\n</script>"
    )


def _json(part: object) -> str:
    # Inside a script element, "<" could end it or open a comment.
    return json.dumps(part).replace("<", "\\u003c")
