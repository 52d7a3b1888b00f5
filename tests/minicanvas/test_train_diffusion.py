"""How mini-sd is trained, on a few pictures and for a step or two: what is written, resumed and left alone."""

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from PIL import Image

from razor import models
from razor.device import default_device
from razor.minicanvas import train_diffusion, training
from razor.minicanvas.__main__ import main
from razor.minicanvas.dataset import AXES, draw
from razor.minicanvas.pictures import PIXELS, Pictures

LABELS = [{"object": "cat", "style": "mosaic"}, {"object": "boat", "style": "photo"}, {"identity": AXES["identity"][0]}]


@pytest.fixture
def few(monkeypatch):
    """Three pictures, one step of everything, and a judge that looks at three drawn pictures."""
    pixels = np.stack([np.asarray(draw(labels, "train", 0).resize((PIXELS, PIXELS))) for labels in LABELS])
    monkeypatch.setattr(Pictures, "rendered", classmethod(lambda cls, *a, **k: cls(pixels, LABELS)))
    monkeypatch.setattr(train_diffusion, "combinations", lambda: LABELS)
    for name, value in {"AUTOENCODER_STEPS": 2, "DECODER_STEPS": 1, "END_STEPS": 1, "STEPS": 2}.items():
        monkeypatch.setattr(train_diffusion, name, value)


@pytest.fixture
def tiny(monkeypatch):
    sizes = {"block_out_channels": (8, 8, 8), "norm_num_groups": 4}
    monkeypatch.setattr(train_diffusion, "AUTOENCODER", train_diffusion.AUTOENCODER | sizes)
    monkeypatch.setattr(
        train_diffusion, "UNET", train_diffusion.UNET | {"block_out_channels": (16, 16), "norm_num_groups": 4}
    )


def test_training_writes_a_pipeline_and_its_card_and_goes_on_where_it_stopped(few, tiny, tmp_path, capsys):
    made, work = {}, tmp_path / "work"
    work.mkdir()
    for name in ("first", "again"):
        card = train_diffusion.train_diffusion(steps=1, batch=4, seed=0, work=work, out=tmp_path / name)
        made[name] = train_diffusion.load(tmp_path / name)
        assert json.loads((tmp_path / name / "card.json").read_text()) == card
    assert card["training"]["command"].endswith("train diffusion --steps 1 --batch 4 --seed 0")
    assert card["judged_accuracy"]["object"]["n"] == 4 and card["judged_accuracy"]["identity"]["n"] == 2
    for part in ("unet", "vae", "text_encoder"):
        one, other = (getattr(pipeline, part).state_dict() for pipeline in made.values())
        assert all(torch.equal(one[key], other[key]) for key in one)  # nothing was trained twice


def test_the_decoder_learns_alone(few, tiny, tmp_path):
    torch.manual_seed(0)
    vae = AutoencoderKL(**train_diffusion.AUTOENCODER).requires_grad_(False).to(default_device())
    before = {key: value.clone() for key, value in vae.state_dict().items()}
    data = Pictures.rendered("train", per_pair=1, per_person=1, work=tmp_path)
    train_diffusion._train_decoder(vae, data, batch=4, seed=0, work=tmp_path)
    moved = {key.split(".")[0] for key, value in vae.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"decoder", "post_quant_conv"}
    assert not any(p.requires_grad for p in vae.parameters())


def test_another_seed_does_not_take_up_a_checkpoint(few, tiny, tmp_path):
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = torch.nn.Linear(2, 1)
        start = model.weight.clone()
        loss = lambda model, rng, progress: model(torch.ones(1, 2, device=model.weight.device)).square().sum()  # noqa: E731
        training.fit("line", model, loss, steps=1, seed=seed, lr=0.1, work=tmp_path)
        made.append((start, model.weight.cpu()))
    (zero, _), (one, trained) = made
    assert not torch.equal(zero, one)
    assert (trained - one).abs().max() < 0.11  # one step from its own start, not from the other's


def test_the_bundled_model_is_shown_and_trained_in_its_own_folder_wherever_it_is_asked(monkeypatch, tmp_path):
    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_diffusion, "load", asked.append)
    monkeypatch.setattr(train_diffusion, "drawn", lambda pipeline, cells: [Image.new("RGB", (8, 8)) for _ in cells])
    main(["show", "sheet.png", "--drawn"])
    monkeypatch.setattr(train_diffusion, "train_diffusion", lambda **told: asked.append(told["out"]))
    main(["train", "diffusion"])
    assert asked == [models.ASSETS / "models" / "mini-sd"] * 2 and (tmp_path / "sheet.png").is_file()


def test_noise_is_the_same_for_the_same_seed_and_key():
    assert torch.equal(train_diffusion.initial_noise(3, "a"), train_diffusion.initial_noise(3, "a"))
    assert not torch.equal(train_diffusion.initial_noise(3, "a"), train_diffusion.initial_noise(3, "b"))


def test_text_encoder_gives_mini_clips_token_states():
    from razor import models

    clip = models.load("mini-clip", device="cpu")
    encoder, tokens = train_diffusion.text_encoder_of_mini_clip(), train_diffusion.tokenizer()
    texts = ["a photo of a cat", "a neon sign of a boat"]
    ids = tokens(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        states = encoder(ids).last_hidden_state
        expected = clip.model.encode_text(clip.tokenizer(texts))
        found = states[torch.arange(2), (ids == 2).int().argmax(1)] @ clip.model.text_projection  # 2 ends a sentence
    assert torch.nn.functional.cosine_similarity(found, expected).min() > 0.999


def test_one_step_from_noise_has_no_signal_left():
    scheduler = DDIMScheduler(**train_diffusion.SCHEDULER)
    assert scheduler.alphas_cumprod[-1] < 1e-6  # so that drawing may begin from noise alone
