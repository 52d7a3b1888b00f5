"""Models by name: tiny ones load and classify, everything broken or unsafe is one sentence, nothing is fetched."""

import json
import logging
import pickle

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_pipelines import tiny_sd

from razor import models
from razor.errors import ModelError
from razor.examples import Axis

CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32},
        "text_cfg": {"width": 32, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3},
}


@pytest.fixture(autouse=True)
def forget_loaded(monkeypatch):
    """Every test starts with no model loaded and no way out to a network."""
    monkeypatch.setattr(models, "_loaded", {})
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it asked the network"))


@pytest.fixture(scope="session")
def network():
    torch.manual_seed(0)
    return open_clip.CLIP(**CONFIG["model_cfg"])


@pytest.fixture
def folder(tmp_path, network):
    """A local open_clip folder with stock tokenizer, as a person would bring it."""
    (tmp_path / "open_clip_config.json").write_text(json.dumps(CONFIG))
    save_file(network.state_dict(), tmp_path / "open_clip_model.safetensors")
    return tmp_path


def refusal(name):
    """The one sentence a model is refused with."""
    with pytest.raises(ModelError) as caught:
        models.load(str(name), device="cpu")
    assert "\n" not in str(caught.value) and models._loaded == {}
    return str(caught.value)


def rewrite(folder, **changes):
    """Change entries of the model_cfg in a folder; a dict adds to what is there."""
    config = json.loads(json.dumps(CONFIG))
    for part, value in changes.items():
        config["model_cfg"][part] = config["model_cfg"][part] | value if isinstance(value, dict) else value
    (folder / "open_clip_config.json").write_text(json.dumps(config))


# ---------------------------------------------------------------- loading


def test_local_folder_loads_with_its_own_weights_and_classifies(folder, network, same_weights, weights_of):
    adapter = models.load(str(folder), device="cpu")
    assert same_weights(adapter.model, weights_of(network))
    axis = Axis("pet", {"cat": ("a cat", "a photo of a cat"), "dog": ("a dog",), "owl": ("an owl",)})
    shares = adapter.classify([Image.new("RGB", (40, 60), colour) for colour in ("red", "blue")], axis)
    assert shares.shape == (2, 3) and torch.allclose(shares.sum(1), torch.ones(2))
    assert [u.name for u in adapter.units(("head",), ("image",))] == [
        f"image.{i}.head.{h}" for i in (0, 1) for h in (0, 1)
    ]


def test_second_load_gives_the_same_object(folder):
    assert models.load(str(folder), device="cpu") is models.load(str(folder), device="cpu")


def test_loaded_model_is_in_eval_mode_and_asks_for_no_gradients(folder):
    model = models.load(str(folder), device="cpu").model
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_loading_quietens_no_log_for_good(folder):
    refusal("nothing")
    models.load(str(folder), device="cpu")
    assert logging.root.manager.disable == logging.NOTSET


def test_weights_may_have_another_name(folder):
    (folder / "open_clip_model.safetensors").rename(folder / "weights.safetensors")
    models.load(str(folder), device="cpu")


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("", "Name a model: mini-clip, mini-sd, a local folder, or architecture/pretrained."),
        ("   ", "Name a model: mini-clip, mini-sd, a local folder, or architecture/pretrained."),
        ("no/such/folder", "No model 'no/such/folder': it is not bundled"),
        ("ViT-B-9000/openai", "No model 'ViT-B-9000/openai': it is not bundled"),
        ("ViT-B-32/nowhere", "ViT-B-32 has no weights named 'nowhere'; pick one of openai, "),
        ("ViT-B-32", "ViT-B-32 has no weights named ''; pick one of openai, "),
        ("missing.pt", "missing.pt is a pickle, which can run code when opened; convert it to safetensors first."),
    ],
)
def test_unknown_name_says_what_there_is(name, sentence):
    assert refusal(name).startswith(sentence)


# ---------------------------------------------------------------- files


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".pth", ".ckpt", ".pkl", ".PT"])
def test_pickle_is_refused_unopened(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(Trap(tmp_path / "trapped")))
    assert "is a pickle, which can run code when opened" in refusal(path)
    assert not (tmp_path / "trapped").exists()


def test_folder_with_only_a_pickle_is_refused_unopened(folder):
    (folder / "open_clip_model.safetensors").unlink()
    (folder / "open_clip_pytorch_model.bin").write_bytes(pickle.dumps(Trap(folder / "trapped")))
    assert "holds only open_clip_pytorch_model.bin, a pickle, which can run code when opened" in refusal(folder)
    assert not (folder / "trapped").exists()


def test_pickle_beside_the_weights_is_not_opened(folder):
    (folder / "open_clip_pytorch_model.bin").write_bytes(pickle.dumps(Trap(folder / "trapped")))
    models.load(str(folder), device="cpu")
    assert not (folder / "trapped").exists()


def test_folder_without_weights_is_refused(folder):
    (folder / "open_clip_model.safetensors").unlink()
    assert refusal(folder).endswith("holds no weights; save the weights as open_clip_model.safetensors.")


def test_folder_without_a_config_is_refused(folder):
    (folder / "open_clip_config.json").unlink()
    assert refusal(folder).endswith("has no open_clip_config.json; give a folder as open_clip saves it.")


def test_single_file_is_refused(folder):
    sentence = refusal(folder / "open_clip_model.safetensors")
    assert "is a single file; give the folder that holds open_clip_config.json" in sentence


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"model_cfg": 1}', '{"model_cfg": {"text_cfg": {}}}'])
def test_config_that_is_none_is_refused(folder, text):
    (folder / "open_clip_config.json").write_text(text)
    assert "is not an open_clip configuration" in refusal(folder)


@pytest.mark.parametrize("part", ["text_cfg", "vision_cfg"])
def test_config_whose_towers_are_not_tables_is_refused(folder, part):
    rewrite(folder, **{part: "big"})
    refusal(folder)


@pytest.mark.parametrize(
    "tower",
    [{"text_cfg": {"hf_model_name": "someone/bert"}}, {"vision_cfg": {"timm_model_name": "hf-hub:someone/vit"}}],
)
def test_config_that_takes_a_tower_from_a_hub_is_refused(folder, tower):
    rewrite(folder, **tower)
    assert "takes a tower from a hub (" in refusal(folder)


def test_config_never_makes_a_local_folder_ask_the_network(folder):
    rewrite(folder, text_cfg={"hf_tokenizer_name": "someone/tokenizer"})
    assert refusal(folder).startswith(f"Cannot load {str(folder)!r}: ")
    rewrite(folder, vision_cfg={"timm_model_name": "test_vit", "timm_model_pretrained": True})
    assert refusal(folder).startswith(f"Cannot load {str(folder)!r}: ")


def test_config_never_makes_a_local_folder_run_code(folder, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(folder / "modules"))
    code = f"open({str(folder / 'trapped')!r}, 'w')\nfrom transformers import PreTrainedTokenizer as Trap\n"
    (folder / "trap.py").write_text(code)
    settings = {"tokenizer_class": "Trap", "auto_map": {"AutoTokenizer": ["trap.Trap", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    rewrite(folder, text_cfg={"hf_tokenizer_name": "mine", "tokenizer_kwargs": {"trust_remote_code": True}})
    refusal(folder)
    assert not (folder / "trapped").exists()


@pytest.mark.parametrize("spoil", [lambda data: data[:2000], lambda data: b"", lambda data: b"\xff" * 100])
def test_corrupt_weights_are_one_sentence(folder, spoil):
    path = folder / "open_clip_model.safetensors"
    path.write_bytes(spoil(path.read_bytes()))
    assert refusal(folder).startswith(f"Cannot load {str(folder)!r}: ")


def test_weights_of_another_shape_are_one_sentence(folder):
    rewrite(folder, embed_dim=24)
    assert refusal(folder).startswith(f"Cannot load {str(folder)!r}: ")


def test_missing_tensor_is_one_sentence(folder, network):
    state = {name: value for name, value in network.state_dict().items() if name != "visual.proj"}
    save_file(state, folder / "open_clip_model.safetensors")
    assert refusal(folder).startswith(f"Cannot load {str(folder)!r}: ")


def test_model_without_heads_is_refused_on_loading(folder):
    rewrite(folder, vision_cfg={"layers": [1, 1, 1, 1], "width": 8})
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    assert "has no attention heads that can be edited one by one" in refusal(folder)


# ---------------------------------------------------------------- the bundled model


def test_bundled_model_loads_and_tells_a_cat_from_other_objects():
    folder = models.BUNDLED["mini-clip"]
    if not (folder / "open_clip_model.safetensors").exists() or not (folder / "card.json").exists():
        pytest.skip("assets/models/mini-clip is not trained yet")
    from razor.minicanvas.dataset import draw
    from razor.minicanvas.tasks import axes

    cats = [draw({"object": "cat", "style": "photo"}, "test", index) for index in range(12)]
    shares = models.load("mini-clip", device="cpu").classify(cats, axes()[0])
    assert (shares.argmax(1) == axes()[0].classes.index("cat")).float().mean() > 0.7
    assert models.card("mini-clip")["license"] == "MIT"


def test_no_other_model_has_a_card():
    assert models.card("ViT-B-32/openai") == {}


def test_a_diffusers_folder_is_a_model_that_draws(tmp_path):
    tiny_sd(tmp_path / "sd")
    adapter = models.load(str(tmp_path / "sd"), device="cpu")
    assert adapter.family == "diffusion" and adapter.judge is None
    assert {unit.tower for unit in adapter.units()} == {"text", "cross", "self"}


def test_only_a_clip_can_judge_and_only_what_is_drawn(tmp_path):
    tiny_sd(tmp_path / "sd")
    drawing, clip = models.load(str(tmp_path / "sd"), device="cpu"), models.load("mini-clip")
    with pytest.raises(ModelError, match="cannot judge"):
        models.with_judge(clip, "mini-clip")
    with pytest.raises(ModelError, match="cannot judge"):
        models.with_judge(drawing, str(tmp_path / "sd"))
    assert models.with_judge(drawing, "mini-clip").judge.name.startswith("mini-clip")
