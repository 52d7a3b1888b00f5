"""Settings: every range is enforced by name, and recipes give back what they stored."""

import json

import pytest

from razor import cli
from razor.commands import given, making
from razor.config import PAPER, RazorConfig
from razor.errors import InputError

BAD = {
    "alpha": (-0.1, 9, "1", float("nan")),
    "tau": (-0.1, 1.0),
    "rho": (0, 1.1, float("inf")),
    "retain_weight": (-1, 11),
    "mismatch_weight": (-1, 101),
    "step_size": (0, 0.6, None),
    "inner_steps": (0, 201, True, 2.5),
    "start_units": (0, 257, 1.5),
    "rounds": (0, 65, 1.5),
    "forget_target": (-0.1, 1.1, "chance"),
    "retain_budget": (-0.1, 1.1),
    "batch": (1, 4097, 2.5),
}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in BAD.items() for value in values])
def test_value_out_of_range_is_named(name, value):
    with pytest.raises(InputError, match=rf"^{name} is .*; it must be a") as caught:
        RazorConfig(**{name: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [(), ("tensor",)])
def test_unknown_kinds_are_named(value):
    with pytest.raises(InputError, match=r"^granularity is .*; choose at least one of "):
        RazorConfig(granularity=value)


def test_towers_are_named_or_left_to_the_model():
    assert RazorConfig().towers is None
    with pytest.raises(InputError, match=r"^towers is empty; name at least one"):
        RazorConfig(towers=())


@pytest.mark.parametrize("value", ["cosine", "", ("answer",), 1])
def test_a_forget_loss_is_one_of_those_there_are(value):
    with pytest.raises(InputError) as caught:
        RazorConfig(forget_loss=value)
    assert str(caught.value) == f"forget_loss is {value!r}; choose answer or alignment."


def test_ends_of_a_range_are_allowed():
    RazorConfig(alpha=0, tau=0, rho=1, inner_steps=1, batch=2, forget_target=0, retain_budget=1)


def test_settings_survive_json():
    kinds = {"granularity": ("layer",), "towers": ("image",), "forget_loss": "alignment"}
    config = RazorConfig(alpha=0.5, forget_target=0.1, **kinds, rescore=False, seed=7)
    stored = json.loads(json.dumps(config.to_json()))
    assert RazorConfig.from_json(stored) == config
    assert RazorConfig.from_json(RazorConfig().to_json()) == RazorConfig()


def test_missing_settings_take_their_default_and_unknown_ones_are_refused():
    assert RazorConfig.from_json({"alpha": 0.5}) == RazorConfig(alpha=0.5)
    with pytest.raises(InputError, match=r"^Unknown settings beta; known are alpha, batch, "):
        RazorConfig.from_json({"alpha": 0.5, "beta": 1})


def test_stored_settings_are_checked_too():
    with pytest.raises(InputError, match=r"^rho is 2; it must be a number from 0.01 to 1.$"):
        RazorConfig.from_json({"rho": 2})


def test_the_rule_as_published_is_chosen_by_name_and_may_be_changed(monkeypatch):
    seen = []
    monkeypatch.setitem(making.COMMANDS, "unlearn", lambda args: seen.append(given.config_of(args)))
    plain = ["unlearn", "--model", "mini-clip", "--forget", "object:cat", "--out", "x"]
    for more in ([], ["--method", "paper"], ["--method", "paper", "--inner-steps", "4"]):
        cli.main([*plain, *more])
    usual, paper, longer = seen
    assert usual == RazorConfig() and paper == RazorConfig(**PAPER)
    assert (longer.inner_steps, longer.start_units, longer.granularity) == (4, 1, ("head", "layer"))
