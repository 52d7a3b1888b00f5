"""Models by name: tiny ones load and classify, everything broken or unsafe is one sentence, nothing is fetched."""

import copy
import gc
import json
import logging
import pickle
import shutil
import socket
import weakref
from pathlib import Path
from weakref import WeakValueDictionary

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_pipelines import tiny_sd

from razor import device, models, pipelines
from razor.adapters.diffusion import DiffusionAdapter
from razor.cli import main
from razor.errors import InputError, ModelError
from razor.examples import Axis
from razor.minicanvas import tasks
from razor.minicanvas.dataset import Target
from razor.patches import Patch, model_lock
from razor.sources import draws_its_own
from razor.units import Slice

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
    monkeypatch.setattr(models, "_alive", WeakValueDictionary())
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


def refusal(name, **options):
    """The one sentence a model is refused with."""
    with pytest.raises(ModelError) as caught:
        models.load(str(name), device="cpu", **options)
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
        ("", "Name a model: mini-clip, mini-sd, mini-vlm, a local folder, or architecture/pretrained."),
        ("   ", "Name a model: mini-clip, mini-sd, mini-vlm, a local folder, or architecture/pretrained."),
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


def test_folder_that_is_no_model_is_told_what_folders_can_be_loaded(folder):
    (folder / "open_clip_config.json").unlink()
    assert refusal(folder) == (
        f"{folder} has none of open_clip_config.json, as open_clip saves a CLIP, model_index.json, as diffusers "
        "saves a pipeline, and config.json, as transformers saves a vision-language model; give a folder with one."
    )
    (folder / "config.json").write_text(json.dumps({"model_type": "sundial"}))
    assert "does not know to answer questions about pictures ('sundial')" in refusal(folder)


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


# ---------------------------------------------------------------- models that draw


@pytest.fixture(scope="session")
def drawing(tmp_path_factory):
    """A folder of diffusers."""
    folder = tmp_path_factory.mktemp("drawing") / "sd"
    tiny_sd(folder)
    return folder


def test_a_diffusers_folder_is_a_model_that_draws(drawing):
    adapter = models.load(str(drawing), device="cpu")
    assert adapter.family == "diffusion" and adapter.judge is None
    assert {unit.tower for unit in adapter.units()} == {"text", "cross", "self"}


def test_only_a_clip_can_judge_and_only_what_is_drawn(drawing):
    adapter, clip = models.load(str(drawing), device="cpu"), models.load("mini-clip")
    with pytest.raises(ModelError, match="cannot judge"):
        models.with_judge(clip, "mini-clip")
    with pytest.raises(ModelError, match="cannot judge"):
        models.with_judge(adapter, str(drawing))
    assert models.with_judge(adapter, "mini-clip").judge.name.startswith("mini-clip")


def test_the_bundled_model_draws_the_bundled_world_whoever_looks():
    view = models.with_judge(models.load("mini-sd", device="cpu"), "mini-clip")
    assert view.judge.guesses and not draws_its_own(view)
    with pytest.raises(InputError, match="which a copy never saw"):
        DiffusionAdapter(view.pipeline, name="a copy").bench(tasks.task(Target("style", "neon")))


def test_a_judge_is_one_visitors_own_and_all_else_is_shared(drawing, folder, weights_of, same_weights):
    adapter = models.load(str(drawing), device="cpu")
    view, before = models.with_judge(adapter, str(folder)), weights_of(adapter.model)
    assert view.judge is not None and adapter.judge is None and models.load(str(drawing), device="cpu") is adapter
    assert view.model is adapter.model and view.pipeline is adapter.pipeline
    assert model_lock(view.model) is model_lock(adapter.model) and view.fingerprint() == adapter.fingerprint()
    edited = next(iter(before))
    with Patch({Slice(edited, 0, 0, 1): torch.ones_like(before[edited][:1])}).applied(view.model):
        assert torch.equal(dict(adapter.model.named_parameters())[edited][:1], before[edited][:1] + 1)
    assert same_weights(adapter.model, before)
    assert [unit.name for unit in view.units()] == [unit.name for unit in adapter.units()]
    assert torch.equal(view.encode(["a cat"]).states, adapter.encode(["a cat"]).states)


def test_while_only_a_view_is_in_use_its_network_is_not_loaded_again(drawing, folder):
    view = models.with_judge(models.load(str(drawing), device="cpu"), str(folder))
    models._make_room()
    gc.collect()
    assert models.load(str(drawing), device="cpu").model is view.model


# ---------------------------------------------------------------- what stays loaded


@pytest.fixture
def folders(folder, tmp_path_factory):
    """Three folders of one and the same CLIP."""
    root = tmp_path_factory.mktemp("clips")
    return [Path(shutil.copytree(folder, root / str(i))) for i in range(3)]


def loaded_once(path):
    """A weak reference to a model that nobody holds once it is loaded."""
    return weakref.ref(models.load(str(path), device="cpu"))


def test_a_bundled_model_stays_and_a_copy_does_not(trained):
    bundled = models.load("mini-clip")
    assert models.stays(bundled) and not models.stays(copy.copy(bundled)) and not models.stays(trained)


def test_bundled_models_and_the_last_two_others_stay_loaded(folders):
    bundled, *others = map(loaded_once, ["mini-clip", *folders])
    assert [found() is not None for found in (bundled, *others)] == [True, False, True, True]


def test_asking_for_a_model_again_keeps_it_longer(folders):
    first, second = map(loaded_once, folders[:2])
    models.load(str(folders[0]), device="cpu")
    loaded_once(folders[2])
    assert first() is not None and second() is None


def test_a_model_somebody_works_on_is_never_loaded_twice(folders):
    mine = models.load(str(folders[0]), device="cpu")
    for other in folders[1:]:
        loaded_once(other)
    assert not any(adapter is mine for adapter in models._loaded.values())
    assert models.load(str(folders[0]), device="cpu") is mine


def test_only_a_model_that_answers_is_spread_over_all_cards(folders, monkeypatch):
    asked = []
    monkeypatch.setattr(models, "_vlm", lambda *given: asked.append(given))
    models._load("mini-vlm", "auto", None)
    models._load("mini-vlm", "cpu", None)
    kind = device.default_device()
    assert [given[2:] for given in asked] == [(kind, None, None, True), ("cpu", None, None, False)]
    assert models.load(str(folders[0]), device="auto").device.type == kind


def test_a_name_that_is_wrong_costs_no_loaded_model(folders, tmp_path):
    kept = [*map(loaded_once, folders[:2])]
    with pytest.raises(ModelError):
        models.load(str(tmp_path / "nothing"), device="cpu")
    assert all(found() is not None for found in kept)


def test_too_little_memory_frees_what_nobody_works_on_before_a_model_is_refused(drawing, folder, monkeypatch, tmp_path):
    mine, idle = models.load("mini-clip", device="cpu"), loaded_once(folder)
    (tmp_path / "meminfo").write_text("MemAvailable: 1 kB")
    monkeypatch.setattr(pipelines, "MEMINFO", tmp_path / "meminfo")
    with pytest.raises(
        ModelError, match=r"this machine has 0\.0 GB free\. Close pages and programs that use its memory"
    ):
        models.load(str(drawing), device="cpu")
    assert idle() is None and models.load("mini-clip", device="cpu") is mine


# ---------------------------------------------------------------- precision


def test_precision_is_part_of_what_is_loaded(drawing):
    whole, half = (models.load(str(drawing), device="cpu", dtype=dtype) for dtype in (None, "bfloat16"))
    assert (whole.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    assert models.load(str(drawing), device="cpu", dtype="bfloat16") is half


@pytest.mark.parametrize("name", list(models.BUNDLED))
def test_a_bundled_model_is_float32_on_every_device_unless_another_precision_is_asked_for(name, monkeypatch):
    asked = []
    monkeypatch.setattr(models, "_load", lambda *key: asked.append(key))
    monkeypatch.setattr(models, "_keep", lambda key, adapter: None)
    for dtype in (None, "bfloat16"):
        models.load(name, device="cuda:7", dtype=dtype)
    assert asked == [(name, "cuda:7", "float32", None), (name, "cuda:7", "bfloat16", None)]
    models.load("elsewhere", device="cuda:7")
    assert asked[-1] == ("elsewhere", "cuda:7", None, None)


def test_precision_that_cannot_be_had_is_one_sentence(drawing, folder):
    assert refusal(drawing, dtype="float16").startswith("float16 is for graphics cards; on a CPU use --dtype float32")
    assert refusal(drawing, dtype="int8") == "No precision 'int8'; choose one of float32, float16, bfloat16."
    assert refusal(folder, dtype="bfloat16") == (
        f"{folder} is a CLIP, which is loaded in float32 alone, not in bfloat16; leave out --dtype, or name a model "
        "that draws or answers."
    )
    models.load(str(folder), device="cpu", dtype="float32")


def test_precision_is_an_option_of_the_command_line(drawing, tmp_path, capsys):
    for side, name, red in (("forget", "red cat", 120), ("retain", "green tree", 0)):
        (tmp_path / side).mkdir()
        for i in range(3):
            Image.new("RGB", (16, 16), (red + 20 * i, 90, 60)).save(tmp_path / side / f"a {name} {i}.png")
    sets = ["--forget", str(tmp_path / "forget"), "--retain", str(tmp_path / "retain"), "--concept", "red cat"]
    command = ["score", "--model", str(drawing), "--device", "cpu", *sets, "--batch", "2"]
    main([*command, "--dtype", "bfloat16", "--json", str(tmp_path / "scores.json")])
    [adapter] = models._loaded.values()
    assert adapter.dtype == torch.bfloat16
    units = json.loads((tmp_path / "scores.json").read_text())["units"]
    assert units[0]["phi"] > 0 and len(units) == len(adapter.units())
    with pytest.raises(SystemExit) as stop:
        main([*command, "--dtype", "float16"])
    assert stop.value.code == 2 and capsys.readouterr().err.strip().endswith("or bfloat16 to save memory.")


def test_precision_of_the_page_is_that_of_the_model_it_starts_with(drawing, monkeypatch):
    import app

    class Built(Exception):
        pass

    given = {}

    def build_demo(load, *, model):
        given.update(load=load, model=model)
        raise Built

    monkeypatch.setattr(app, "build_demo", build_demo)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for host in ("127.0.0.1", "0.0.0.0"):
        with pytest.raises(Built):
            app.launch(host=host, model=str(drawing), dtype="bfloat16")
        assert given["load"](str(drawing)).dtype == torch.bfloat16
        assert given["load"]("mini-clip").name == "mini-clip"  # a CLIP has no choice, and is served all the same
    with pytest.raises(ModelError, match="mini-clip is a CLIP, which is loaded in float32 alone"):
        app.launch(dtype="bfloat16")


@pytest.mark.parametrize("part", ["unet", "text_encoder", "scheduler"])
def test_one_part_of_a_pipeline_names_the_whole(drawing, part):
    assert refusal(str(drawing / part)) == (
        f"{drawing / part} is one part of a pipeline of diffusers; give the whole, {drawing}."
    )


# ---------------------------------------------------------------- the hub cache


@pytest.fixture
def cached(tmp_path_factory, monkeypatch):
    """folder -> copy it to where a fetched hub model owner/name lies."""
    hub = tmp_path_factory.mktemp("hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    home = hub / "models--owner--name"

    def put(folder):
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "main").write_text("abc123")
        return Path(shutil.copytree(folder, home / "snapshots" / "abc123"))

    return put


@pytest.fixture(params=["unreachable", "switched off"])
def no_hub(request, monkeypatch):
    """The hub's own client, with no way to the hub; gives what it then says."""
    if request.param == "switched off":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        return "HF_HUB_OFFLINE is set"

    def nowhere(*_, **__):
        raise socket.gaierror("Name not known")

    monkeypatch.setattr("socket.getaddrinfo", nowhere)
    return "check the connection"


def test_fetched_hub_pipeline_opens_again_without_the_hub(cached, no_hub, drawing, same_weights, weights_of):
    cached(drawing)
    adapter, source = (models.load(name, device="cpu") for name in ("hf-hub:owner/name", str(drawing)))
    assert adapter is not source and same_weights(adapter.model, weights_of(source.model))


def test_half_fetched_hub_pipeline_is_refused_by_what_is_in_the_way(cached, no_hub, drawing):
    next(cached(drawing).glob("unet/*.safetensors")).unlink()
    assert no_hub in refusal("hf-hub:owner/name")


def test_hub_model_that_was_never_fetched_is_refused_by_what_is_in_the_way(cached, no_hub):
    assert no_hub in refusal("hf-hub:owner/name")


def test_fetched_hub_clip_opens_again_without_the_hub(cached, no_hub, folder, network, same_weights, weights_of):
    cached(folder)
    assert same_weights(models.load("hf-hub:owner/name", device="cpu").model, weights_of(network))


def test_training_computes_in_bfloat16_only_where_the_device_does(monkeypatch):
    able = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    with device.sped_up("cpu"):
        assert torch.is_autocast_enabled("cpu") == able
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)
    with device.sped_up("cpu"):
        assert not torch.is_autocast_enabled("cpu")


def test_a_card_that_is_only_lent_counts_as_none(monkeypatch):
    monkeypatch.setattr(device.torch.cuda, "is_available", lambda: True)
    assert device.default_device() == "cuda"
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert device.default_device() == "cpu"
