"""How mini-clip is trained, on a few pictures and for two steps: what is written, taken up again and never shown."""

import json
import random

import numpy as np
import pytest
import torch

from razor import models
from razor.minicanvas import train_clip
from razor.minicanvas.dataset import AXES, draw, parse_target
from razor.minicanvas.pictures import PIXELS, Pictures

PERSON = AXES["identity"][0]
LABELS = [{"object": "cat", "style": "mosaic"}, {"object": "boat", "style": "photo"}, {"identity": PERSON}]


@pytest.fixture
def few(monkeypatch):
    """Three pictures, and towers of one block."""
    pixels = np.stack([np.asarray(draw(labels, "train", 0).resize((PIXELS, PIXELS))) for labels in LABELS])
    monkeypatch.setattr(Pictures, "rendered", classmethod(lambda cls, *a, **k: cls(pixels, LABELS)))
    config = json.loads(json.dumps(train_clip.CLIP_CONFIG))
    for tower in ("vision_cfg", "text_cfg"):
        config["model_cfg"][tower] |= {"layers": 1}
    monkeypatch.setattr(train_clip, "CLIP_CONFIG", config)


def trained(folder, name="out", **options):
    work, out = folder / "work", folder / name
    work.mkdir(exist_ok=True)
    return train_clip.train_clip(steps=2, batch=4, seed=0, work=work, out=out, **options), out


def weights(out):
    return models.load(str(out), device="cpu").model.state_dict()


def test_training_writes_a_model_that_loads_and_its_card_and_goes_on_where_it_stopped(few, tmp_path, monkeypatch):
    card, out = trained(tmp_path)
    assert card == json.loads((out / "card.json").read_text())
    assert card["training"]["command"] == "python -m razor.minicanvas train clip --steps 2 --batch 4 --seed 0"
    assert {axis: found["n"] for axis, found in card["zero_shot_accuracy"].items()} == {
        "object": 2, "style": 2, "identity": 1
    }  # fmt: skip
    adapter = models.load(str(out), device="cpu")
    picture = draw(LABELS[0], "test", 0)
    assert adapter.embed_images(adapter.pixels([picture])).isfinite().all()
    monkeypatch.setattr(train_clip, "contrastive_batch", lambda *_: pytest.fail("both steps are done already"))
    _, again = trained(tmp_path, "again")
    first, second = weights(out), weights(again)
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_a_gold_model_is_never_shown_its_class_and_says_so(few, tmp_path, monkeypatch):
    seen, batch = [], train_clip.contrastive_batch
    monkeypatch.setattr(train_clip, "contrastive_batch", lambda data, *rest: seen.append(data) or batch(data, *rest))
    card, _ = trained(tmp_path, without=parse_target("object:cat"))
    assert card["name"] == "mini-clip-without-cat" and card["training"]["pictures"] == 2
    assert card["training"]["command"].endswith("--without object:cat")
    assert all("cat" not in (data.labels[i].get("object") for i in (*data.people, *data.things)) for data in seen)


def test_a_caption_is_a_positive_of_every_picture_it_is_true_of(few, tmp_path):
    tokenizer = train_clip.build_tokenizer(tmp_path)
    data = Pictures.rendered()
    images, texts, positive = train_clip.contrastive_batch(data, random.Random(0), 6, tokenizer)
    assert images.shape == (6, 3, PIXELS, PIXELS) and texts.shape == (6, 32) and positive.shape == (6, 6)
    assert positive.diagonal().all()  # its own caption is always true
