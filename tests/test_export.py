"""What is exported loads elsewhere, bit for bit; what fails, or is stopped, leaves nothing behind."""

import errno
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import open_clip
import pytest
import tiny_adapters
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from razor import export, writing
from razor import models as catalogue
from razor.cli import main
from razor.errors import InputError, PatchError
from razor.export import verify, write_full, write_lora
from razor.patches import Patch
from razor.reloading import _answers
from razor.units import find_units

RECIPE = {"format": "razor-recipe-1", "task": {"concept": "purple heron"}, "edit_set": {"members": ["text.0.head.1"]}}
KINDS = ("sd", "sd2", "sdxl", "sd3")


def edit(adapter, units, seed=0):
    """A random change of a twentieth of the weights on these units, with a recipe."""
    generator, parameters = torch.Generator().manual_seed(seed), dict(adapter.model.named_parameters())
    views = {s: s.view(parameters[s.parameter]) for unit in units for s in unit.slices}
    deltas = {s: 0.05 * max(v.std(), 0.1) * torch.randn(v.shape, generator=generator) for s, v in views.items()}
    return Patch(deltas).bound_to(adapter.model).with_recipe(RECIPE)


def mixed(adapter):
    """An edit in every network of a pipeline: one head of each tower, and an MLP."""
    units = adapter.units(("head", "mlp"))
    heads = [next(u for u in units if u.tower == tower and u.kind == "head") for tower in adapter.towers]
    return edit(adapter, [*heads, next(u for u in units if u.kind == "mlp")])


@pytest.fixture
def clip_folder(tmp_path):
    """A local open_clip model as a person would bring it."""
    vision = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": {"width": 32, "heads": 2, "layers": 2}}
    torch.manual_seed(0)
    folder = tmp_path / "brought"
    folder.mkdir()
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    preprocess = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    return folder


@pytest.fixture
def clip_adapter(clip_folder, monkeypatch):
    monkeypatch.setattr(catalogue, "_loaded", {})
    return catalogue.load(str(clip_folder), device="cpu")


@pytest.fixture(scope="module")
def vlm():
    """A tiny LLaVA of random weights, with as much of an adapter as an export needs."""
    words = ["<pad>", "<unk>", "<image>", "a", "picture", "of", "cat"]
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "additional_special_tokens": ["<image>"]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, **special)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    vision = CLIPVisionConfig(**size, num_hidden_layers=3, image_size=16, patch_size=8, projection_dim=32)
    text = LlamaConfig(**size, num_hidden_layers=2, num_key_value_heads=2, vocab_size=len(words))
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=2))
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
    )
    return SimpleNamespace(family="vlm", name="tiny vlm", model=model.eval().requires_grad_(False), processor=processor)


def vision_head(vlm):
    return find_units(vlm.model, {"vision": r"model\.vision", "language": ""}, ("head",))[:1]


def header(path):
    with safe_open(path, "pt") as opened:
        return opened.metadata()


def everything(folder):
    """All text of all files and headers under a folder, and their names."""
    found = []
    for path in folder.rglob("*"):
        found.append(path.name)
        if path.suffix == ".safetensors":
            found.append(json.dumps(header(path)))
        elif path.is_file():
            found.append(path.read_text("utf-8"))
    return "\n".join(found)


# ---------------------------------------------------------------- full models


@pytest.mark.parametrize("kind", KINDS)
def test_diffusers_folder_is_the_edited_pipeline_bit_for_bit(tmp_path, weights_of, same_weights, kind):
    adapter = tiny_adapters.shared(kind)
    patch, before = mixed(adapter), weights_of(adapter.model)
    written = write_full(adapter, patch, tmp_path / "full")
    assert same_weights(adapter.model, before)
    check = verify(adapter, patch, written.path)
    assert check.exact and check.difference < 1e-5 and check.bytes == written.bytes > 100_000
    assert not verify(adapter, patch.scaled(0.9), written.path).exact  # the check can fail
    assert json.loads((tmp_path / "full" / "recipe.json").read_text()) == RECIPE
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize("kind", KINDS[:3])
def test_single_file_is_the_edited_pipeline_bit_for_bit(tmp_path, kind):
    adapter = tiny_adapters.shared(kind)
    patch = mixed(adapter)
    written = write_full(adapter, patch, tmp_path / "one.safetensors", single_file=True)
    assert verify(adapter, patch, written.path).exact
    assert "set its prediction to" in written.notes[0]
    keys = load_file(written.path).keys()
    assert {key.split(".")[0] for key in keys} == {
        "model",
        "first_stage_model",
        "conditioner" if kind == "sdxl" else "cond_stage_model",
    }


def test_single_file_of_a_forked_architecture_is_refused_rather_than_guessed(tmp_path):
    joint = tiny_adapters.shared("sd3")
    with pytest.raises(InputError, match="Stable Diffusion 3 cannot be written as one file"):
        write_full(joint, Patch(), tmp_path / "one.safetensors", single_file=True)
    odd = tiny_adapters.fresh("sd")
    odd.pipeline.unet.register_module("extra", torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"The unet has no exact form as one file \(its 'extra\.bias' has no place\)"):
        write_full(odd, Patch(), tmp_path / "one.safetensors", single_file=True)
    assert not list(tmp_path.iterdir())


def test_open_clip_folder_is_the_edited_model_bit_for_bit_here_and_by_its_own_call(tmp_path, clip_adapter):
    patch = edit(clip_adapter, clip_adapter.units(("head",))[:3])
    written = write_full(clip_adapter, patch, tmp_path / "full")
    assert verify(clip_adapter, patch, written.path).exact
    with patch.applied(clip_adapter.model):
        expected = {name: tensor.clone() for name, tensor in clip_adapter.model.state_dict().items()}
    theirs = open_clip.create_model(f"local-dir:{written.path}", require_pretrained=True).state_dict()
    assert theirs.keys() == expected.keys() and all(torch.equal(theirs[name], expected[name]) for name in expected)
    ours = catalogue.load(str(written.path), device="cpu").model.state_dict()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


def test_open_clip_model_of_unknown_making_is_refused(tmp_path, wrap, clip):
    with pytest.raises(InputError, match=r"tiny has no open_clip_config\.json and is no architecture of open_clip"):
        write_full(wrap(clip), Patch(), tmp_path / "full")


def test_transformers_folder_is_the_edited_model_bit_for_bit(tmp_path, vlm):
    patch = edit(vlm, vision_head(vlm))
    written = write_full(vlm, patch, tmp_path / "full")
    check = verify(vlm, patch, written.path)
    assert check.exact and check.bytes == written.bytes
    assert not verify(vlm, Patch(), written.path).exact


def test_model_of_half_precision_keeps_it(tmp_path):
    adapter = tiny_adapters.fresh("sd")
    adapter.model.bfloat16()
    patch = mixed(adapter)
    write_full(adapter, patch, tmp_path / "full")
    with patch.applied(adapter.model):
        expected = {name: tensor.clone() for name, tensor in adapter.model["unet"].state_dict().items()}
    found = load_file(tmp_path / "full" / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(found[name].dtype == torch.bfloat16 and torch.equal(found[name], expected[name]) for name in expected)


# ---------------------------------------------------------------- in another process


ELSEWHERE = """
import json, sys, torch, open_clip
from pathlib import Path
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration

root = Path(sys.argv[1])
given, equal = load_file(root / "expected.safetensors"), {}

def aligned(network):
    # The same weights round differently where they lie differently in memory, as they do in a file that is mapped.
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.data.clone()
    return network.eval()

given = {name: tensor.clone() for name, tensor in given.items()}
local = {"local_files_only": True, "safety_checker": None}
pipelines = {
    "folder": DiffusionPipeline.from_pretrained(root / "sd", use_safetensors=True, **local),
    "file": StableDiffusionPipeline.from_single_file(str(root / "sd.safetensors"), config=str(root / "sd"), **local),
}
with torch.no_grad():
    for name, pipeline in pipelines.items():
        states = aligned(pipeline.text_encoder)(given["ids"]).last_hidden_state
        noise = aligned(pipeline.unet)(given["noise"], 300, encoder_hidden_states=states).sample
        equal[name] = torch.equal(states, given["states"]) and torch.equal(noise, given["predicted"])
    clip = aligned(open_clip.create_model(f"local-dir:{root / 'clip'}", require_pretrained=True))
    equal["clip"] = torch.equal(clip.encode_image(given["pixels"]), given["image"])
    vlm = LlavaForConditionalGeneration.from_pretrained(root / "vlm", use_safetensors=True, local_files_only=True)
    logits = aligned(vlm)(input_ids=given["words"], pixel_values=given["small"]).logits
    equal["vlm"] = torch.equal(logits, given["logits"])
alone = "razor" not in sys.modules

sys.path.insert(0, sys.argv[2])
from razor import models
from razor.importing import read_edit

sd, clip = (models.load(str(root / name), device="cpu") for name in ("base", "brought"))
for network in (*sd.model.values(), clip.model):
    aligned(network)
off = {}
with torch.no_grad():
    for form in ("patch", "lora"):
        with read_edit(root / f"sd-{form}.safetensors", sd).applied(sd.model):
            states = sd.model["text_encoder"](given["ids"]).last_hidden_state
            noise = sd.denoiser(given["noise"], 300, encoder_hidden_states=states).sample
        with read_edit(root / ("clip-lora" if form == "lora" else "clip-patch.safetensors"), clip).applied(clip.model):
            image = clip.model.encode_image(given["pixels"])
        pairs = (states, given["states"]), (noise, given["predicted"]), (image, given["image"])
        if form == "patch":
            equal[form] = all(torch.equal(*pair) for pair in pairs)
        off[form] = max(((found - wanted).norm() / wanted.norm()).item() for found, wanted in pairs)
print(json.dumps({"alone": alone, "equal": equal, "off": off}))
"""


def test_every_form_answers_the_same_in_a_fresh_process_and_full_models_without_this_library(
    tmp_path, clip_adapter, vlm
):
    sd, made = tiny_adapters.shared("sd"), torch.Generator().manual_seed(3)
    given = {"ids": torch.arange(8)[None], "noise": torch.randn(1, 4, 8, 8, generator=made)}
    given |= {"pixels": torch.randn(1, 3, 32, 32, generator=made), "small": torch.randn(1, 3, 16, 16, generator=made)}
    given["words"] = torch.tensor([[2, 2, 2, 2, 3, 4]])
    heads = edit(clip_adapter, [u for u in clip_adapter.units(("mlp",)) if u.tower == "image"][:1])
    patches = {"sd": mixed(sd), "clip": heads, "vlm": edit(vlm, vision_head(vlm))}
    adapters = {"sd": sd, "clip": clip_adapter, "vlm": vlm}
    for name, adapter in adapters.items():
        write_full(adapter, patches[name], tmp_path / name)
    write_full(sd, patches["sd"], tmp_path / "sd.safetensors", single_file=True)
    sd.pipeline.save_pretrained(tmp_path / "base")
    for name in ("sd", "clip"):
        export.write_patch(adapters[name], patches[name], tmp_path / f"{name}-patch.safetensors")
    write_lora(sd, patches["sd"], tmp_path / "sd-lora.safetensors")
    write_lora(clip_adapter, heads, tmp_path / "clip-lora")
    with torch.no_grad(), patches["sd"].applied(sd.model), heads.applied(clip_adapter.model):
        given["states"] = sd.model["text_encoder"](given["ids"]).last_hidden_state
        given["predicted"] = sd.denoiser(given["noise"], 300, encoder_hidden_states=given["states"]).sample
        given["image"] = clip_adapter.model.encode_image(given["pixels"])
        with patches["vlm"].applied(vlm.model):
            given["logits"] = vlm.model(input_ids=given["words"], pixel_values=given["small"]).logits
    save_file({name: tensor.contiguous() for name, tensor in given.items()}, tmp_path / "expected.safetensors")
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path), str(Path(__file__).resolve().parents[1])]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["equal"] == dict.fromkeys(("folder", "file", "clip", "vlm", "patch"), True)
    assert found["alone"] and found["off"]["lora"] <= 1e-4


# ---------------------------------------------------------------- LoRA


@pytest.mark.parametrize("scale", [1.0, 0.4])
@pytest.mark.parametrize("kind", KINDS)
def test_lora_is_the_edit_within_rounding(tmp_path, kind, scale):
    adapter = tiny_adapters.shared(kind)
    patch = edit(adapter, [u for u in adapter.units(("head",)) if u.tower in ("text", "cross", "context")][::3])
    written = write_lora(adapter, patch, tmp_path / "l.safetensors", scale=scale)
    check = verify(adapter, patch, written.path, scale=scale)
    assert check.difference <= 1e-4 and written.residual == 0
    assert verify(adapter, Patch(), written.path).difference > 1e-3  # the check can fail


def test_lora_of_another_family_is_a_folder_of_peft(tmp_path, clip_adapter, vlm):
    mlp = [u for u in clip_adapter.units(("mlp",)) if u.tower == "image"][:1]
    for adapter, patch in ((clip_adapter, edit(clip_adapter, mlp)), (vlm, edit(vlm, vision_head(vlm)))):
        written = write_lora(adapter, patch, tmp_path / adapter.family)
        assert verify(adapter, patch, written.path).difference <= 1e-4
        settings = json.loads((written.path / "adapter_config.json").read_text())
        assert settings["peft_type"] == "LORA" and settings["r"] == settings["lora_alpha"]
        assert str(tmp_path) not in everything(written.path)


def test_peft_itself_loads_the_folder(tmp_path, vlm):
    peft = pytest.importorskip("peft")
    patch = edit(vlm, vision_head(vlm))
    write_lora(vlm, patch, tmp_path / "lora")
    with patch.applied(vlm.model):
        expected = _answers(vlm)[0]
    loaded = peft.PeftModel.from_pretrained(vlm.model, tmp_path / "lora").eval()
    try:
        found = _answers(SimpleNamespace(family="vlm", model=loaded, processor=vlm.processor))[0]
    finally:
        loaded.unload()
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_one_head_of_the_bundled_model_takes_less_than_200_kilobytes(tmp_path):
    adapter = catalogue.load("mini-sd", device="cpu")
    parameters = dict(adapter.model.named_parameters())
    for tower in ("text", "cross"):
        heads = [u for u in adapter.units(("head",)) if u.tower == tower]
        patch = edit(adapter, [max(heads, key=lambda u: u.size(parameters))])
        for keys in ("peft", "kohya"):
            written = write_lora(adapter, patch, tmp_path / f"{tower}-{keys}.safetensors", keys=keys)
            assert written.bytes <= 200_000
            assert verify(adapter, patch, written.path).difference <= 1e-4


# ---------------------------------------------------------------- headers, and what they do not say


def test_header_says_what_the_file_is_as_modelspec_and_kohya_have_it(tmp_path):
    xl = tiny_adapters.shared("sdxl")
    head = edit(xl, [u for u in xl.units(("head",)) if u.tower == "cross"][:1])
    write_lora(xl, head, tmp_path / "heron.safetensors", keys="kohya", scale=0.5)
    found = header(tmp_path / "heron.safetensors")
    assert found["modelspec.sai_model_spec"] == "1.0.0" and found["modelspec.title"] == "heron"
    assert found["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert found["modelspec.implementation"] == "diffusers" and found["modelspec.resolution"] == "16x16"
    assert found["modelspec.description"] == "Makes tiny sdxl forget 'purple heron'. Made with RAZOR Studio."
    assert found["ss_network_module"] == "networks.lora" and found["ss_network_alpha"] == "0.5"
    assert found["ss_base_model_version"] == "sdxl_base_v1-0" and found["ss_v2"] == "False"
    assert json.loads(found["razor.recipe"]) == RECIPE
    two = tiny_adapters.shared("sd2")
    write_full(two, Patch(), tmp_path / "two.safetensors", single_file=True)
    found = header(tmp_path / "two.safetensors")
    assert found["modelspec.architecture"] == "stable-diffusion-v2-768-v"
    assert found["modelspec.prediction_type"] == "v" and "Stability-AI" in found["modelspec.implementation"]


@pytest.mark.parametrize("form", ["folder", "file", "clip", "vlm"])
def test_redacted_model_says_nothing_of_the_edit(tmp_path, clip_adapter, vlm, form):
    adapter = {"clip": clip_adapter, "vlm": vlm}.get(form) or tiny_adapters.shared("sd")
    units = vision_head(vlm) if form == "vlm" else adapter.units(("head",))[:1]
    patch, single = edit(adapter, units), form == "file"
    for redacted in (False, True):
        out = tmp_path / f"{redacted}" / ("m.safetensors" if single else "m")
        write_full(adapter, patch, out, single_file=single, redacted=redacted)
        told = everything(out.parent)
        assert all((word in told) != redacted for word in ("purple heron", "text.0.head.1"))
        assert not redacted or not any(word in told.lower() for word in ("razor", "recipe", "forget"))
    assert not single or header(out)["modelspec.title"] != "m", "a file's name may say what was forgotten"
    assert "what was removed" in export.WHY_REDACTED


def test_no_export_says_where_on_this_machine_the_model_was(tmp_path, clip_adapter):
    adapter = catalogue.load("mini-sd", device="cpu")
    recipe = {
        "model": {"name": clip_adapter.name},
        "task": {"concept": "x", "origin": {"forget": str(tmp_path / "ada")}},
    }
    write_full(adapter, Patch(), tmp_path / "out" / "sd")
    write_full(adapter, Patch(recipe=recipe), tmp_path / "out" / "one.safetensors", single_file=True)
    assert json.loads(header(tmp_path / "out" / "one.safetensors")["razor.recipe"])["task"]["origin"]["forget"] == "ada"
    write_full(clip_adapter, Patch(), tmp_path / "out" / "clip")
    told = everything(tmp_path / "out")
    assert str(catalogue.ASSETS) not in told and str(tmp_path) not in told


# ---------------------------------------------------------------- whole or not at all


def writers(adapter, patch, root):
    """The ways to write that can be stopped, each at a place of its own: name -> (place, call)."""
    calls = {
        "folder": (root / "full", lambda out, **more: write_full(adapter, patch, out, **more)),
        "file": (
            root / "one.safetensors",
            lambda out, **more: write_full(adapter, patch, out, single_file=True, **more),
        ),
        "lora": (root / "l.safetensors", lambda out, **more: write_lora(adapter, patch, out, **more)),
    }
    return calls


def other_writers(adapter, patch, root, vlm):
    """The ways to write that are left."""
    head, cross = (
        edit(vlm, vision_head(vlm)),
        edit(adapter, [u for u in adapter.units(("head",)) if u.tower == "cross"]),
    )
    return {
        "patch": (root / "p.safetensors", lambda out: export.write_patch(adapter, patch, out)),
        "kohya": (root / "k.safetensors", lambda out: write_lora(adapter, cross, out, keys="kohya")),
        "peft": (root / "peft", lambda out: write_lora(vlm, head, out)),
        "vlm": (root / "full", lambda out: write_full(vlm, head, out)),
    }


WAYS = ("folder", "file", "lora")


@pytest.mark.parametrize("way", WAYS)
def test_stopping_at_any_moment_leaves_nothing_and_the_model_as_found(tmp_path, weights_of, same_weights, way):
    adapter = tiny_adapters.shared("sd")
    before, (out, write) = weights_of(adapter.model), writers(adapter, mixed(adapter), tmp_path)[way]
    asked = 0

    def count():
        nonlocal asked
        asked += 1
        return False

    write(out, stop=count, replace=True)
    writing.remove(out)
    assert asked > 10
    for moment in (1, 2, asked // 2, asked):
        left = iter(range(moment - 1))
        assert write(out, stop=lambda left=left: next(left, None) is None) is None
        assert not list(tmp_path.iterdir())
    assert same_weights(adapter.model, before)


@pytest.mark.parametrize("way", [*WAYS, "patch", "kohya", "peft", "vlm"])
def test_full_disk_and_an_error_in_the_middle_leave_nothing(tmp_path, monkeypatch, vlm, way):
    adapter = tiny_adapters.shared("sd")
    patch = mixed(adapter)
    out, write = (writers(adapter, patch, tmp_path) | other_writers(adapter, patch, tmp_path, vlm))[way]
    with monkeypatch.context() as patched:
        patched.setattr(writing.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
        with pytest.raises(
            InputError, match=rf"Cannot write {out.name}: .* GB are needed and 0\.00 GB are free\. Make"
        ):
            write(out)
    assert not list(tmp_path.iterdir())

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(writing.os, "fsync", full)  # as when somebody else fills the disk meanwhile
        with pytest.raises(InputError, match=rf"Cannot write {out.name}: No space left on device\. Make room"):
            write(out)
    assert not list(tmp_path.iterdir())

    def interrupt(number):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(out)
    assert not list(tmp_path.iterdir())


def test_place_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    adapter = tiny_adapters.shared("sd")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match=r"^Cannot write full: taken is no folder\. Choose a place that may be"):
        write_full(adapter, Patch(), tmp_path / "taken" / "full")

    def refuse(*places):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(writing.os, "replace", refuse)
    with pytest.raises(InputError, match=r"Cannot write l\.safetensors: Permission denied\."):
        write_lora(adapter, mixed(adapter), tmp_path / "l.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_there_is_kept_unless_it_may_be_replaced(tmp_path, way):
    adapter = tiny_adapters.shared("sd")
    patch = mixed(adapter)
    out, write = writers(adapter, Patch() if way != "lora" else patch.scaled(0.5), tmp_path)[way]
    write(out)
    with pytest.raises(
        InputError, match=rf"{out.name} exists already; choose another name, or allow it to be replaced"
    ):
        writers(adapter, patch, tmp_path)[way][1](out)
    assert not verify(adapter, patch, out).exact
    writers(adapter, patch, tmp_path)[way][1](out, replace=True)
    assert verify(adapter, patch, out).difference < 1e-6
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_replacing_that_fails_leaves_the_old_export_in_place(tmp_path, monkeypatch):
    adapter, out = tiny_adapters.shared("sd"), tmp_path / "full"
    write_full(adapter, Patch(), out)
    rename = writing.os.rename

    def fail_second(old, new):
        if Path(new) == out and ".old" not in str(old):
            raise PermissionError(errno.EACCES, "Permission denied")
        rename(old, new)

    monkeypatch.setattr(writing.os, "rename", fail_second)
    with pytest.raises(InputError, match="Permission denied"):
        write_full(adapter, mixed(adapter), out, replace=True)
    assert verify(adapter, Patch(), out).exact
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_link_stays_and_the_model_it_leads_to_is_replaced(tmp_path):
    adapter, real, link = tiny_adapters.shared("sd"), tmp_path / "real", tmp_path / "link"
    link.symlink_to(real)
    for patch in (Patch(), mixed(adapter)):
        written = write_full(adapter, patch, link, replace=True)
        assert link.is_symlink() and written.path == real and verify(adapter, patch, real).exact
    assert {path.name for path in tmp_path.iterdir()} == {"real", "link"}


def test_replacing_never_touches_a_foreign_folder_or_the_model_in_use(tmp_path, clip_adapter, clip_folder):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("dear")
    with pytest.raises(InputError, match="letters is a folder that holds no model, so it is not replaced"):
        write_full(clip_adapter, Patch(), tmp_path / "letters", replace=True)
    with pytest.raises(InputError, match="brought is the model that is being edited; choose another place"):
        write_full(clip_adapter, Patch(), clip_folder, replace=True)
    with pytest.raises(InputError, match="part lies in the model that is being edited; choose another place"):
        write_full(clip_adapter, Patch(), clip_folder / "part")
    assert (tmp_path / "letters" / "love.txt").read_text() == "dear"
    assert (clip_folder / "open_clip_model.safetensors").is_file()


def test_form_a_family_does_not_have_is_refused(tmp_path, clip_adapter):
    with pytest.raises(InputError, match="Only a diffusion model has the form of one file"):
        write_full(clip_adapter, Patch(), tmp_path / "one.safetensors", single_file=True)
    with pytest.raises(InputError, match=r"full\.safetensors is the wrong kind of name for this export; give a folder"):
        write_full(clip_adapter, Patch(), tmp_path / "full.safetensors")


def test_edit_of_another_model_is_not_exported(tmp_path):
    ours, other = tiny_adapters.shared("sd"), tiny_adapters.fresh("sd")
    with torch.no_grad():
        next(iter(other.model["text_encoder"].encoder.layers)).self_attn.q_proj.weight.add_(1e-3)
    for out, write in writers(other, mixed(ours), tmp_path).values():
        with pytest.raises(PatchError, match="This patch was made for another model"):
            write(out)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- from the command line


@pytest.fixture(scope="module")
def patch_of(tmp_path_factory):
    """name of a bundled model -> the file of a patch of one of its text heads."""
    folder = tmp_path_factory.mktemp("patches")

    def make(name):
        adapter = catalogue.load(name, device="cpu")
        edit(adapter, [u for u in adapter.units(("head",)) if u.tower == "text"][:1]).save(folder / name)
        return str(folder / name)

    return make


def run(name, patch, *more):
    main(["export", "--model", name, "--device", "cpu", "--patch", patch, *map(str, more)])


def test_command_writes_each_form_and_says_what_came_of_loading_it_again(tmp_path, patch_of, capsys):
    patch = patch_of("mini-sd")
    for form, out, more in (
        ("patch", "p.safetensors", ()),
        ("lora", "l.safetensors", ("--keys", "kohya", "--scale", "0.5")),
        ("full", "one.safetensors", ("--single-file", "--redacted")),
    ):
        run("mini-sd", patch, "--as", form, "--out", tmp_path / out, "--json", tmp_path / "told.json", *more)
        told, written = capsys.readouterr().out.splitlines(), json.loads((tmp_path / "told.json").read_text())
        assert (written["form"], written["bytes"]) == (form, (tmp_path / out).stat().st_size)
        assert written["loaded_again"]["exact"] == (form != "lora") and bool(written["ranks"]) == (form == "lora")
        assert told[0].endswith(f" in {tmp_path / out}") and told[1].startswith("Loaded again, it")
        assert ("bit for bit" in told[1]) == (form != "lora") or float(told[1].split()[-4]) < 1e-4
    assert torch.equal(*(next(iter(Patch.load(p).deltas.values())) for p in (patch, tmp_path / "p.safetensors")))
    assert header(tmp_path / "l.safetensors")["ss_network_alpha"] == "0.5"
    assert "purple heron" not in everything(tmp_path / "one.safetensors")


def test_command_tells_what_a_rank_leaves_out(tmp_path, patch_of, capsys):
    run("mini-sd", patch_of("mini-sd"), "--as", "lora", "--rank", "2", "--out", tmp_path / "l.safetensors")
    assert "its ranks leave out " in capsys.readouterr().out


def test_command_replaces_an_export_only_when_told_to(tmp_path, patch_of, capsys):
    command = ["mini-clip", patch_of("mini-clip"), "--as", "full", "--out", tmp_path / "full"]
    run(*command)
    with pytest.raises(SystemExit):
        run(*command)
    assert "full exists already; choose another name" in capsys.readouterr().err
    run(*command, "--replace")
    assert "bit for bit" in capsys.readouterr().out and [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize(
    "more, said",
    [
        (["--as", "lora", "--redacted"], "--redacted is for --as full alone, not --as lora. A patch, a LoRA or"),
        (["--as", "patch", "--rank", "3"], "--rank is for --as lora alone, not --as patch."),
        (["--as", "lora", "--out", "x"], "to which no program adds a LoRA rightly"),
    ],
)
def test_command_that_cannot_be_followed_is_one_sentence(tmp_path, monkeypatch, patch_of, capsys, more, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run("mini-clip", patch_of("mini-clip"), "--out", "x.safetensors", *more)
    assert stop.value.code == 2 and said in capsys.readouterr().err and not list(tmp_path.iterdir())
