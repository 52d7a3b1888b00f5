"""The glossary: every term is there, short, and safe inside a script element."""

import json
import re

import pytest

from components import glossary
from components.glossary import ALIASES, TERMS, head, term

EXPECTED = """
phi, pressure, separation, ratio, tau, alpha, rho, rank, unit, head, mlp, layer, tower, edit set, growth round,
forget set, retain set, neighbour, forget accuracy, retain accuracy, retrieval stability, search split, test split,
interval, strength, overshoot, lock, ban, branch, estimate, bootstrap, attribution, integrated gradients, ablation,
drift, chance, patch, conflict, spearman, trial step, unlearning accuracy, in-domain retain accuracy,
cross-domain retain accuracy, concept still predicted, retained prompts kept, prediction stability, search point, judge,
draw instead, forget loss
"""


def test_every_word_of_the_page_is_explained():
    assert set(" ".join(EXPECTED.split()).split(", ")) <= set(TERMS)


@pytest.mark.parametrize("word", sorted(TERMS))
def test_an_explanation_is_one_or_two_short_sentences(word):
    title, text = TERMS[word]
    assert title and text.endswith(".") and len(re.findall(r"[.!?](?=\s|$)", text)) <= 2
    assert len(text) <= 200
    assert word == word.lower()


def test_aliases_lead_to_terms():
    assert set(ALIASES.values()) <= set(TERMS)
    assert not set(ALIASES) & set(TERMS)


def test_a_term_is_escaped_and_reachable_by_keyboard():
    assert term("phi") == '<span class="term" data-term="phi" tabindex="0">phi</span>'
    assert term("phi", "<b>") == '<span class="term" data-term="phi" tabindex="0">&lt;b&gt;</span>'


def test_a_word_without_an_entry_is_named():
    with pytest.raises(ValueError, match="'entropy'"):
        term("entropy")


def test_the_script_ends_only_where_it_should(monkeypatch):
    monkeypatch.setitem(TERMS, "nasty", ("</script>", "<!-- <script> \u2028"))
    script = head()
    assert script.startswith("<script>") and script.endswith("</script>")
    assert script.count("</script") == 1 and "<!--" not in script


def test_the_script_holds_every_term_as_json():
    listed = re.search(r"const TERMS = (.*);\n", head()).group(1)
    assert json.loads(listed) == {word: list(entry) for word, entry in glossary.TERMS.items()}
