"""A saved model comes back as it was; everything unsafe or unfit is refused in one sentence before it is opened."""

import json
import pickle
import shutil
import warnings
from fnmatch import fnmatch
from types import SimpleNamespace

import pytest
import tiny_vlms
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_vlms import KINDS, change
from transformers import CLIPConfig, LlamaConfig

from razor import models, vlm_loading
from razor.errors import InputError, ModelError
from razor.vlm_loading import SUPPORTED, load_vlm

GREY = Image.new("RGB", (40, 40), "grey")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """kind -> the folder of a tiny model; copy it before changing it."""
    made = {}

    def folder(kind="llava"):
        if kind not in made:
            made[kind] = tiny_vlms.save(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return folder


@pytest.fixture
def copy(saved, tmp_path):
    """A LLaVA of one's own."""
    return shutil.copytree(saved(), tmp_path / "llava")


def refused(source, **options):
    """The sentence a model is refused with."""
    with pytest.raises(ModelError) as caught:
        load_vlm(str(source), device="cpu", name="toy", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_answers_as_it_did(saved, kind, capsys):
    folder = saved(kind)
    capsys.readouterr()  # transformers draws a bar while it saves
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapter = load_vlm(str(folder), device="cpu")
    before = vlm_loading.VlmAdapter(*tiny_vlms.tiny(kind), name="before")
    assert adapter.fingerprint() == before.fingerprint() and adapter.dtype == torch.float32
    asked = [GREY], ["What is this?"]
    assert adapter.answer(*asked, max_new_tokens=4) == before.answer(*asked, max_new_tokens=4)
    assert capsys.readouterr() == ("", "")


def tiny_fingerprint():
    return vlm_loading.VlmAdapter(*tiny_vlms.tiny("llava"), name="before").fingerprint()


def test_a_precision_may_be_asked_for_and_memory_made_room_for(saved, monkeypatch):
    asked = []
    monkeypatch.setattr(vlm_loading.pipelines, "_free", lambda place: 1000)
    adapter = load_vlm(str(saved()), device="cpu", dtype="bfloat16", make_room=lambda: asked.append("room"))
    assert adapter.dtype == torch.bfloat16 and asked == ["room"]
    assert len(adapter.answer([GREY], ["What is this?"], max_new_tokens=2)) == 1
    assert refused(saved(), dtype="int8") == "No precision 'int8'; choose one of float32, float16, bfloat16."


def test_what_no_memory_here_could_hold_is_refused_unread(saved, monkeypatch):
    monkeypatch.setattr(vlm_loading, "_capacity", lambda place, spread: 1000)
    assert refused(saved()).startswith("The weights of toy need 0.0 GB and this machine has 0.0 GB. Load it in half ")


def test_the_chat_template_is_loaded_with_the_processor(saved):
    assert load_vlm(str(saved("qwen2_vl")), device="cpu")._text("Who?").startswith("user: <|vision_start|>")


def test_shards_are_read_through_their_index(copy):
    weights = load_file(copy / "model.safetensors")
    names = sorted(weights)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({n: weights[n] for n in part}, copy / file, metadata={"format": "pt"})
    (copy / "model.safetensors").unlink()
    table = {"metadata": {}, "weight_map": {n: file for file, part in halves.items() for n in part}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(table))
    assert load_vlm(str(copy), device="cpu").fingerprint() == tiny_fingerprint()
    (copy / "model-2.safetensors").unlink()
    assert refused(copy).startswith("Cannot load 'toy': ")


def test_weights_that_are_missing_are_said(copy):
    weights = load_file(copy / "model.safetensors")
    dropped = next(name for name in weights if name.endswith("layers.1.mlp.up_proj.weight"))
    save_file({n: w for n, w in weights.items() if n != dropped}, copy / "model.safetensors", metadata={"format": "pt"})
    assert refused(copy).startswith("1 of the weights of toy are missing or do not fit on the cards here (model.")


# ---------------------------------------------------------------- what is no vision-language model


def test_a_text_only_model_is_refused(copy):
    LlamaConfig(hidden_size=8, num_attention_heads=2).save_pretrained(copy)
    assert (
        refused(copy)
        == f"toy is a language model without a vision tower (llama), so it reads no pictures; {SUPPORTED}."
    )


def test_an_image_only_model_is_refused(copy):
    CLIPConfig().save_pretrained(copy)
    assert refused(copy) == f"toy reads pictures but has no language model (clip), so it answers nothing; {SUPPORTED}."
    change(copy, "config.json", model_type="vit")
    assert refused(copy).startswith("toy reads pictures but has no language model (vit)")


def test_an_unknown_architecture_is_refused(copy):
    change(copy, "config.json", model_type="marvel")
    assert refused(copy) == (
        f"toy is of a type that transformers does not know to answer questions about pictures ('marvel'); {SUPPORTED}."
    )


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_code_that_comes_with_a_model_is_refused(copy, file):
    change(copy, file, auto_map={"AutoModel": "modeling.Model"})
    (copy / "modeling.py").write_text("raise SystemExit('run')")
    assert refused(copy) == (
        f"toy asks to run code that comes with it (auto_map in {file}), which is refused; {SUPPORTED}."
    )


def test_pickled_weights_are_refused_and_never_opened(copy):
    (copy / "model.safetensors").unlink()
    assert refused(copy) == "toy holds no weights; save the weights as model.safetensors."
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    assert refused(copy) == (
        "toy holds only pytorch_model.bin, a pickle, which can run code when opened; save the weights as "
        "model.safetensors."
    )
    assert refused(copy / "pytorch_model.bin").startswith("toy is a pickle, which can run code when opened; ")


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


# ---------------------------------------------------------------- what does not fit together


def test_a_tokenizer_without_the_pictures_token_is_refused(copy):
    text = (copy / "tokenizer.json").read_text().replace("<image>", "<photo>")
    (copy / "tokenizer.json").write_text(text)
    change(copy, "tokenizer_config.json", image_token=None, extra_special_tokens=None)
    assert refused(copy) == (
        "The tokenizer of toy has no token '<image>' to stand for a picture; use the processor the model was saved "
        "with."
    )


def test_a_pictures_token_of_another_number_is_refused(copy):
    change(copy, "config.json", image_token_id=6)
    assert refused(copy) == (
        "The tokenizer of toy numbers '<image>' 3 and the model expects 6; use the processor the model was saved with."
    )


def test_another_number_of_places_for_a_picture_is_refused(copy):
    change(copy, "processor_config.json", patch_size=16)
    assert refused(copy).startswith("The processor of toy does not fit it: it leaves 4 places for a picture of which ")


def test_a_missing_processor_is_refused(copy):
    for file in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json", "tokenizer.json"):
        (copy / file).unlink(missing_ok=True)
    assert refused(copy).startswith("The processor of toy ")


def test_weights_that_are_no_safetensors_are_refused(copy):
    (copy / "model.safetensors").write_bytes(b"no weights")
    assert refused(copy).startswith("Cannot load 'toy': ")


@pytest.mark.parametrize(
    "source, sentence",
    [
        ("", "No model 'toy': give a folder that holds config.json, or a hub id owner/name."),
        ("nothing here", "No model 'toy': give a folder that holds config.json, or a hub id owner/name."),
        (
            "nobody/no-such-model",
            "No model 'toy': there is no such folder, and the hub cache does not hold it; check the name, or allow it "
            "to be downloaded.",
        ),
    ],
)
def test_a_model_that_is_not_there_is_refused(source, sentence):
    assert refused(source) == sentence


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    assert refused(tmp_path) == "toy has no config.json; give a folder as transformers saves it."


def test_a_broken_configuration_is_refused(copy):
    (copy / "config.json").write_text("{")
    assert "config.json of toy cannot be read" in refused(copy)


# ---------------------------------------------------------------- precision


def test_few_bits_need_cuda_and_bitsandbytes(saved, monkeypatch):
    assert refused(saved(), bits=4) == (
        "A model loads in 4 bits only on CUDA with bitsandbytes, and cpu is no CUDA card; load it whole."
    )
    monkeypatch.setattr(vlm_loading.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r", and bitsandbytes is not installed; load it whole\.$"):
        vlm_loading._quantisation(8, torch.device("cuda"))
    with pytest.raises(InputError, match=r"^A model cannot be loaded in 3 bits; choose 8 or 4, or none to load it "):
        load_vlm(str(saved()), device="cpu", bits=3)


def test_memory_that_runs_out_says_what_to_do(saved, monkeypatch):
    from transformers import AutoModelForImageTextToText

    def full(*_, **__):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", full)
    assert refused(saved()) == (
        "Memory ran out while loading toy (0.0 GB). Load it in half precision, in 8 or 4 bits, or over several cards "
        "with --device auto. Your session is as it was."
    )


@pytest.mark.parametrize(
    "saved_in, wide, found",
    [
        ("float16", True, torch.float16),
        ("bfloat16", True, torch.bfloat16),
        ("float32", True, torch.bfloat16),
        ("bfloat16", False, torch.float16),
    ],
)
def test_on_cuda_a_model_has_the_half_precision_it_was_saved_in(monkeypatch, saved_in, wide, found):
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: wide)
    assert vlm_loading._precision({"dtype": saved_in}, None, torch.device("cuda")) == found
    assert vlm_loading._precision({"dtype": saved_in}, None, torch.device("cpu")) == torch.float32


@pytest.mark.parametrize("kind, tower", [("llava", "model.vision_tower"), ("qwen2_vl", "model.visual")])
def test_few_bits_leave_what_sees_whole(saved, kind, tower):
    whole = vlm_loading._outside_language(vlm_loading._find(str(saved(kind)), kind, True))
    assert {tower, "lm_head"} <= set(whole) and not any("language_model".startswith(name) for name in whole)


# ---------------------------------------------------------------- the hub


@pytest.fixture
def hub(saved, tmp_path, monkeypatch):
    """A hub with one model, owner/name, a pickle beside its weights; a list of what was fetched of it."""
    store, here, fetched = shutil.copytree(saved(), tmp_path / "store"), tmp_path / "abc123", []
    (store / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    names = [path.name for path in store.iterdir()]

    def snapshot_download(name, allow_patterns, revision=None, dry_run=False):
        wanted = [file for file in names if any(fnmatch(file, pattern) for pattern in allow_patterns)]
        if dry_run:
            return [SimpleNamespace(file_size=1, will_download=True) for _ in wanted]
        here.mkdir(exist_ok=True)
        for file in wanted:
            shutil.copy(store / file, here / file)
        fetched.extend(wanted)
        return str(here)

    def model_info(self, name, timeout):
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in names])

    def header(self, name, file, revision):
        return SimpleNamespace(parameter_count={"F32": 1000})

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    monkeypatch.setattr("huggingface_hub.HfApi.parse_safetensors_file_metadata", header)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    held = lambda name, file: str(here / file) if (here / file).exists() else None  # noqa: E731
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", held)
    return fetched


def test_a_hub_model_is_fetched_as_safetensors_alone_then_loads_without_the_hub(hub, monkeypatch):
    assert load_vlm("owner/name", device="cpu", name="toy", offline=False).fingerprint() == tiny_fingerprint()
    assert [file for file in hub if not file.endswith((".json", ".jinja"))] == ["model.safetensors"]
    assert load_vlm("owner/name", device="cpu").fingerprint() == tiny_fingerprint()

    def nowhere(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", nowhere)
    assert load_vlm("owner/name", device="cpu", offline=False).fingerprint() == tiny_fingerprint()
    with pytest.raises(ModelError, match=r"^Cannot fetch owner/other from the hub \(no route\); "):
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda name, file: None)
        load_vlm("owner/other", device="cpu", offline=False)


def test_bits_reach_the_loader_and_no_other_kind_of_model_takes_them(saved):
    with pytest.raises(
        ModelError, match=r"^A model loads in 4 bits only on CUDA with bitsandbytes, and cpu is no CUDA "
    ):
        models.load(str(saved()), device="cpu", bits=4)
    with pytest.raises(ModelError, match=r"^mini-clip is loaded whole: only a vision-language model "):
        models.load("mini-clip", device="cpu", bits=8)
    with pytest.raises(InputError, match=r"^A model cannot be loaded in 3 bits"):
        models.load(str(saved()), device="cpu", bits=3)
