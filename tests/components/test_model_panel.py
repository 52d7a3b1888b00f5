"""The card of a loaded model: its real precision, and all of its weights."""

import copy

import torch
from tiny_drawing import Guesses

from components import model_panel


def test_memory_is_that_of_the_weights_as_they_are_the_autoencoder_among_them(adapter):
    parts = {name: getattr(adapter.pipeline, name) for name in ("text_encoder", "unet", "vae")}
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    card = model_panel.describe(adapter)
    assert card["Memory"].startswith(f"{4 * sum(count.values()) / 1e6:.1f} MB of weights")
    assert card["Size"] == f"{sum(count.values()) / 1e6:.1f} M parameters, float32"
    halved, half = copy.copy(adapter), copy.deepcopy(adapter.model).half()
    halved.model = half
    held = 2 * (count["text_encoder"] + count["unet"]) + 4 * count["vae"]
    assert model_panel.describe(halved)["Memory"].startswith(f"{held / 1e6:.1f} MB")
    assert model_panel.describe(halved)["Size"].endswith("float16 and float32")
    assert next(adapter.model.parameters()).dtype == torch.float32


def test_large_models_are_told_in_gigabytes():
    assert model_panel.memory_text(2_130_000_000) == "2.13 GB" and model_panel.memory_text(38_400_000) == "38.4 MB"


def test_the_card_says_who_looks_at_what_it_draws(adapter, trained, monkeypatch):
    said = "What its pictures show is"
    monkeypatch.setattr(adapter, "judge", None)
    assert model_panel.describe(adapter)[said] == "for you to see: no judge"
    monkeypatch.setattr(adapter, "judge", Guesses())
    assert model_panel.describe(adapter)[said].startswith("guessed by tiny")
    assert said not in model_panel.describe(trained)
