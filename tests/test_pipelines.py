"""Pipelines by name: each architecture draws as it was saved, all else is one sentence, nothing is fetched."""

import json
import logging
import pickle
import shutil
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import diffusers
import numpy as np
import open_clip
import pytest
import tiny_pipelines
import torch
import transformers
from huggingface_hub import errors
from safetensors.torch import load_file, save_file
from tiny_adapters import fresh, shared
from tiny_pipelines import draw, flux_like, single_file

from razor import blueprints, pipelines
from razor.adapters.diffusion import DiffusionAdapter
from razor.errors import ModelError

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = ("sd", "sd2", "sdxl", "sd3")
ENDING = f"; {pipelines.SUPPORTED}."


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty hub cache, and no way out to a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for way in ("socket.socket.connect", "socket.getaddrinfo"):
        monkeypatch.setattr(way, lambda *_, **__: pytest.fail("it asked the network"))
    return tmp_path / "hub"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """kind -> (its folder, the pipeline saved there)."""
    root = tmp_path_factory.mktemp("pipelines")
    made = {kind: (root / kind, getattr(tiny_pipelines, f"tiny_{kind}")(root / kind)) for kind in KINDS}
    # As in real checkpoints, and as files that hold this encoder are read.
    made["sd3"][1].text_encoder.text_projection.weight.data.copy_(torch.eye(12))
    made["sd3"][1].text_encoder.save_pretrained(made["sd3"][0] / "text_encoder")
    return made


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the Stable Diffusion 1.x folder, to spoil."""
    return Path(shutil.copytree(saved["sd"][0], tmp_path / "model"))


@pytest.fixture
def checkpoint(saved, tmp_path):
    """The same model as one file, its configuration in a folder of the same name."""
    single_file(saved["sd"][1], tmp_path / "dreams.safetensors")
    shutil.copytree(saved["sd"][0], tmp_path / "dreams", ignore=shutil.ignore_patterns("*.safetensors"))
    return tmp_path / "dreams.safetensors"


def load(name, **options):
    return pipelines.load_pipeline(str(name), **{"device": "cpu", **options})


def refusal(name, **options):
    """The one sentence a model is refused with."""
    with pytest.raises(ModelError) as caught:
        load(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite(path, **changes):
    """Change entries of a JSON file; None takes one away."""
    value = {k: v for k, v in (json.loads(path.read_text()) | changes).items() if v is not None}
    path.write_text(json.dumps(value))


def same_networks(a, b):
    """Whether two pipelines have the same networks, bit for bit."""
    mine, yours = pipelines._networks(a), pipelines._networks(b)
    assert mine.keys() == yours.keys()
    pairs = [(mine[part].state_dict(), yours[part].state_dict()) for part in mine]
    return all(x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x) for x, y in pairs)


def same_picture(a, b):
    """Weights read from a file lie elsewhere in memory, which may round the last bit another way."""
    return np.allclose(draw(a), draw(b), atol=1e-5)


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize("kind", KINDS)
def test_folder_draws_the_picture_of_the_pipeline_saved_there(saved, kind):
    folder, source = saved[kind]
    loaded = load(folder)
    assert type(loaded) is type(source) and same_networks(loaded, source) and same_picture(loaded, source)
    assert draw(source).std() > 0.05  # not one flat colour, which any pipeline could draw


@pytest.mark.parametrize("kind", KINDS)
def test_loaded_networks_are_in_eval_mode_and_ask_for_no_gradients(saved, kind):
    loaded = load(saved[kind][0])
    for network in pipelines._networks(loaded).values():
        assert not network.training and not any(p.requires_grad or p.is_meta for p in network.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_loading_and_drawing_print_nothing(saved, kind, capfd, recwarn):
    loaded = load(saved[kind][0])
    assert not recwarn.list
    loaded("a cat", num_inference_steps=1, output_type="latent")
    assert capfd.readouterr() == ("", "")


def test_what_the_libraries_would_warn_of_is_not_shown(folder, recwarn):
    for part in ("unet", "text_encoder"):
        [path] = (folder / part).glob("*.safetensors")
        save_file(load_file(path) | {"surplus": torch.zeros(1)}, path, metadata={"format": "pt"})
    rewrite(folder / "scheduler" / "scheduler_config.json", steps_offset=0)
    heard = []
    ear = logging.Handler()
    ear.emit = heard.append
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    for logger in loggers:
        logger.addHandler(ear)
    try:
        load(folder)
    finally:
        for logger in loggers:
            logger.removeHandler(ear)
    assert not heard and not recwarn.list


def test_switches_that_make_loading_quiet_are_put_back(folder):
    import diffusers.utils.logging
    import huggingface_hub.utils
    import transformers.utils.logging

    def switches():
        bars = diffusers.utils.logging._tqdm_active, transformers.utils.logging.is_progress_bar_enabled()
        return *bars, huggingface_hub.utils.are_progress_bars_disabled(), logging.root.manager.disable

    before = switches()
    load(folder)
    refusal("nothing")
    assert switches() == before == (True, True, False, logging.NOTSET)


def test_stable_diffusion_3_loads_without_its_third_text_encoder(tmp_path):
    source = tiny_pipelines.tiny_sd3(tmp_path, t5=False)
    loaded = load(tmp_path)
    assert loaded.text_encoder_3 is None and same_networks(loaded, source) and same_picture(loaded, source)


@pytest.mark.parametrize("pair", [["stable_diffusion", "StableDiffusionSafetyChecker"], [None, None], None])
def test_safety_checker_is_left_out_wherever_it_is_named(folder, saved, pair):
    rewrite(folder / "model_index.json", safety_checker=pair, requires_safety_checker=True)
    rewrite(folder / "model_index.json", feature_extractor=pair and ["transformers", "CLIPImageProcessor"])
    loaded = load(folder)
    assert loaded.safety_checker is None and loaded.feature_extractor is None and same_picture(loaded, saved["sd"][1])


def test_class_of_the_whole_pipeline_does_not_matter(folder, saved):
    rewrite(folder / "model_index.json", _class_name="StableDiffusionImg2ImgPipeline")
    assert type(load(folder)) is type(saved["sd"][1])


def test_half_precision_folder_is_loaded_in_full_precision_on_a_cpu(saved, folder):
    for part in ("unet", "vae", "text_encoder"):
        [path] = (folder / part).glob("*.safetensors")
        save_file({k: v.half() for k, v in load_file(path).items()}, path, metadata={"format": "pt"})
    loaded = load(folder)
    assert {p.dtype for network in pipelines._networks(loaded).values() for p in network.parameters()} == {
        torch.float32
    }


def test_weights_in_the_fp16_files_only_are_found(saved, folder):
    for path in [*folder.glob("*/*.safetensors")]:
        path.rename(path.with_suffix(".fp16.safetensors"))
    assert same_networks(load(folder), saved["sd"][1])


def test_weights_in_shards_are_found(saved, folder):
    for part in ("unet", "text_encoder"):
        [path] = (folder / part).glob("*.safetensors")
        path.unlink()
        getattr(saved["sd"][1], part).save_pretrained(folder / part, max_shard_size="50KB" if part != "unet" else "1MB")
        assert not path.exists() and len([*(folder / part).glob("*.safetensors")]) > 1
    assert same_networks(load(folder), saved["sd"][1])
    assert pipelines.memory_needed(str(folder), device="cpu") == bytes_of(saved["sd"][1], 4)


def test_attention_of_an_old_vae_is_found_under_its_old_names(saved, folder):
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for name, value in load_file(path).items():
        for new, was in names.items():
            name = name.replace(f".{new}.", f".{was}.")
        old[name] = value
    assert any(".query." in name for name in old)
    save_file(old, path)
    assert same_networks(load(folder), saved["sd"][1])


def test_pickle_beside_the_weights_is_not_opened(folder):
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Trap(folder / "trapped")))
    load(folder)
    assert not (folder / "trapped").exists()


# ---------------------------------------------------------------- single files


@pytest.mark.parametrize("kind", KINDS)
def test_single_file_draws_the_picture_of_the_pipeline_written_to_it(saved, tmp_path, kind):
    folder, source = saved[kind]
    single_file(source, tmp_path / "any.safetensors")
    shutil.copytree(folder, tmp_path / "config", ignore=shutil.ignore_patterns("*.safetensors"))
    loaded = load(tmp_path / "any.safetensors")
    assert same_networks(loaded, source) and same_picture(loaded, source)
    assert pipelines.card_of(loaded) == pipelines.card_of(source)


def test_single_file_prefers_the_folder_of_its_own_name(checkpoint):
    flux_like(checkpoint.parent / "config")
    load(checkpoint)


def test_single_file_prints_nothing(checkpoint, capfd, recwarn):
    load(checkpoint)
    assert capfd.readouterr() == ("", "") and not recwarn.list


def test_weights_of_a_single_file_win_over_those_beside_it(saved, checkpoint):
    other = tiny_pipelines.tiny_sd(checkpoint.with_suffix(""))  # a whole model, of other weights once one is changed
    other.unet.conv_in.bias.data.add_(1)
    other.save_pretrained(checkpoint.with_suffix(""))
    assert same_networks(load(checkpoint), saved["sd"][1])


def test_single_file_without_text_encoders_takes_them_from_the_folder_beside_it(saved, tmp_path):
    folder, source = saved["sd3"]
    single_file(source, tmp_path / "bare.safetensors", texts=False)
    config = Path(shutil.copytree(folder, tmp_path / "config"))
    assert same_networks(load(tmp_path / "bare.safetensors"), source)
    assert pipelines.memory_needed(str(tmp_path / "bare.safetensors"), device="cpu") == bytes_of(source, 4)
    (config / "text_encoder_3" / "model.safetensors").unlink()
    assert "The text_encoder_3 of" in refusal(tmp_path / "bare.safetensors")
    assert "is not in the file, nor beside its configuration" in refusal(tmp_path / "bare.safetensors")
    (config / "text_encoder_3" / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "trapped")))
    assert "is there only as pytorch_model.bin, a pickle" in refusal(tmp_path / "bare.safetensors")
    assert not (tmp_path / "trapped").exists()


def test_single_file_takes_its_configuration_from_the_hub_cache(saved, checkpoint, cache):
    shutil.move(checkpoint.with_suffix(""), into_cache(cache, "stable-diffusion-v1-5/stable-diffusion-v1-5"))
    assert same_networks(load(checkpoint), saved["sd"][1])


def test_single_file_without_a_configuration_on_this_machine_is_refused(checkpoint):
    shutil.rmtree(checkpoint.with_suffix(""))
    assert refusal(checkpoint, offline=False) == (
        f"{checkpoint} looks like stable-diffusion-v1-5/stable-diffusion-v1-5, whose configuration is not on this "
        "machine; put model_index.json and the folders of its parts, with weights where the file has none, into "
        "dreams/ or config/ beside the file."
    )


@pytest.mark.parametrize(
    "kind, like",
    [
        ("sd", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("sdxl", "stabilityai/stable-diffusion-xl-base-1.0"),
    ],
)
def test_single_file_alone_is_read_by_the_published_configuration_of_its_kind(saved, tmp_path, monkeypatch, kind, like):
    folder, pipeline = saved[kind]
    name, parts = blueprints.BLUEPRINTS[like]

    def config(part):
        file = "scheduler_config.json" if part == "scheduler" else "config.json"
        return json.loads((folder / part / file).read_text())

    ours = {part: (*what[:2], what[2] if "tokenizer" in part else config(part)) for part, what in parts.items()}
    ours["scheduler"] = (*json.loads((folder / "model_index.json").read_text())["scheduler"], config("scheduler"))
    monkeypatch.setitem(blueprints.BLUEPRINTS, like, (name, ours))  # as small as the model
    monkeypatch.setattr(blueprints, "tokenizer", lambda pad: pipeline.tokenizer)
    monkeypatch.setattr(pipelines, "_looks_like", lambda shapes: like)  # XL is told by its width
    blueprints._written.cache_clear()
    try:
        single_file(pipeline, tmp_path / "alone.safetensors")
        found = load(tmp_path / "alone.safetensors")
        assert same_networks(found, pipeline)
        assert found.scheduler.config.prediction_type == pipeline.scheduler.config.prediction_type
    finally:
        blueprints._written.cache_clear()


def written(like, part):
    file = "scheduler_config.json" if part == "scheduler" else "config.json"
    return json.loads((blueprints._written(like) / part / file).read_text())


def test_published_configurations_have_the_published_numbers_of_parameters():
    text, vae = 123_060_480, 83_653_863
    sizes = {
        "stable-diffusion-v1-5/stable-diffusion-v1-5": {"unet": 859_520_964, "vae": vae, "text_encoder": text},
        "stabilityai/stable-diffusion-xl-base-1.0": {
            "unet": 2_567_463_684,
            "vae": vae,
            "text_encoder": text,
            "text_encoder_2": 694_659_840,
        },
    }
    assert sizes.keys() == blueprints.BLUEPRINTS.keys()
    for like, known in sizes.items():
        for part, count in known.items():
            library, kind, _ = blueprints.BLUEPRINTS[like][1][part]
            with torch.device("meta"):
                if library == "diffusers":
                    network = getattr(diffusers, kind).from_config(written(like, part))
                else:
                    network = getattr(transformers, kind)(transformers.CLIPTextConfig(**written(like, part)))
            assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize("like", blueprints.BLUEPRINTS)
def test_published_configurations_are_as_published_where_no_number_of_parameters_tells(like):
    xl, parts = "xl" in like, blueprints.BLUEPRINTS[like][1]
    assert "layers_per_block" in written(like, "unet")  # as usual, and what reads checkpoints asks for it
    assert written(like, "unet")["attention_head_dim"] == ([5, 10, 20] if xl else 8)
    assert written(like, "unet")["sample_size"] == (128 if xl else 64)
    assert written(like, "vae")["scaling_factor"] == (0.13025 if xl else 0.18215)
    acts = {part: written(like, part)["hidden_act"] for part in parts if part.startswith("text")}
    assert acts == {"text_encoder": "quick_gelu"} | ({"text_encoder_2": "gelu"} if xl else {})
    keys = ("beta_schedule", "beta_start", "beta_end", "prediction_type", "steps_offset")
    assert [written(like, "scheduler")[key] for key in keys] == ["scaled_linear", 0.00085, 0.012, "epsilon", 1]
    for part, pad in {"tokenizer": 49407, "tokenizer_2": 0}.items():
        if part in parts:
            ours = transformers.CLIPTokenizer.from_pretrained(blueprints._written(like) / part)
            for said in ("a photo of a cat", "Van Gogh's starry night, 4k", "\u00fcber na\u00efve"):
                theirs = open_clip.get_tokenizer("ViT-L-14")([said])[0]
                read = theirs[: theirs.argmax() + 1].tolist()
                assert ours(said, padding="max_length", max_length=77).input_ids == read + [pad] * (77 - len(read))


def header(like="stable-diffusion-v1-5/stable-diffusion-v1-5", channels=4, **more):
    """Shapes by which a checkpoint is told, and the networks it holds."""
    unet = blueprints.BLUEPRINTS[like][1]["unet"][2]
    first = (unet["block_out_channels"][0], channels, 3, 3)
    read = (unet["block_out_channels"][0], unet["cross_attention_dim"])
    shapes = {"model.diffusion_model.input_blocks.0.0.weight": first, "a.attn2.to_k.weight": read}
    return shapes | more, ["unet", "vae", "text_encoder", "text_encoder_2"]


@pytest.mark.parametrize("like", blueprints.BLUEPRINTS)
def test_a_published_configuration_is_for_whole_checkpoints_of_its_sizes(like):
    shapes, inside = header(like)
    folder = blueprints.configuration(like, shapes, inside)
    assert (folder / "model_index.json").exists()
    assert blueprints.configuration("another/model", shapes, inside) is None
    assert blueprints.configuration(like, header(like, channels=9)[0], inside) is None
    assert blueprints.configuration(like, header(like, **{"b.attn2.to_k.weight": (320, 1024)})[0], inside) is None
    assert blueprints.configuration(like, dict([*shapes.items()][:1]), inside) is None
    assert blueprints.configuration(like, shapes, inside[:1]) is None
    shutil.rmtree(folder)  # as a system does that tidies up
    again = blueprints.configuration(like, shapes, inside)
    assert again != folder and (again / "model_index.json").exists()


@pytest.mark.parametrize("mark", sorted(blueprints.OTHER_NOISE))
def test_single_file_of_another_noise_is_read_by_what_lies_beside_it_alone(tmp_path, cache, saved, mark):
    into = into_cache(cache, "stable-diffusion-v1-5/stable-diffusion-v1-5")
    shutil.copytree(saved["sd"][0], into)
    shapes, _ = header()
    save_file(
        {name: torch.zeros(shape) for name, shape in shapes.items()} | {mark: torch.zeros(0)},
        tmp_path / "v.safetensors",
    )
    assert "of another noise schedule or prediction; put model_index.json" in refusal(tmp_path / "v.safetensors")


def test_single_file_of_another_kind_of_model_is_refused(tmp_path):
    save_file({"lora_unet_down_blocks_0.lora_up.weight": torch.zeros(2, 2)}, tmp_path / "lora.safetensors")
    assert "holds no denoiser that can be edited (no tensor model." in refusal(tmp_path / "lora.safetensors")
    (tmp_path / "model.onnx").write_bytes(b"")
    assert refusal(tmp_path / "model.onnx").endswith(
        "is not a .safetensors checkpoint; give one, or a diffusers folder."
    )


FLUX_KEY = "double_blocks.0.img_attn.norm.key_norm.scale"


@pytest.mark.parametrize(
    "key, shape, found",
    [
        (FLUX_KEY, (2,), "looks like black-forest-labs/FLUX.1-schnell"),
        (f"model.diffusion_model.{FLUX_KEY}", (2,), "looks like black-forest-labs/FLUX.1-schnell"),
        ("clip_txt_mapper.weight", (1536, 1), "looks like stabilityai/stable-cascade-prior"),
        ("model.diffusion_model.input_blocks.0.0.weight", (8, 9, 3, 3), "looks like stable-diffusion-v1-5/stable-diff"),
        ("model.diffusion_model.rings.0.weight", (2,), "holds no denoiser that can be edited"),
    ],
)
def test_single_file_of_a_denoiser_that_cannot_be_edited_says_which_can(tmp_path, key, shape, found):
    save_file({key: torch.zeros(shape)}, tmp_path / "other.safetensors")
    sentence = refusal(tmp_path / "other.safetensors")
    assert sentence.startswith(f"{tmp_path / 'other.safetensors'} {found}") and sentence.endswith(ENDING)


@pytest.mark.parametrize(
    "start, part",
    [
        ("model.diffusion_model.", "denoiser or vae"),
        ("first_stage_model.", "denoiser or vae"),
        ("cond_stage_model.", "text_encoder"),
    ],
)
def test_single_file_that_lacks_one_tensor_is_refused(checkpoint, start, part):
    tensors = load_file(checkpoint)
    gone = next(name for name in reversed(tensors) if name.startswith(start) and name.endswith(".weight"))
    save_file({name: value for name, value in tensors.items() if name != gone}, checkpoint)
    sentence = refusal(checkpoint)
    assert sentence.startswith(f"The weights of {checkpoint} lack ") and f" of its {part}; use a complete" in sentence


def test_single_file_whose_configuration_is_another_models_is_refused(saved, checkpoint):
    shutil.rmtree(checkpoint.with_suffix(""))
    shutil.copytree(saved["sdxl"][0], checkpoint.with_suffix(""), ignore=shutil.ignore_patterns("*.safetensors"))
    refusal(checkpoint)


# ---------------------------------------------------------------- what is refused


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("", "Name a model: a diffusers folder, a .safetensors checkpoint, or a hub id owner/name."),
        ("  ", "Name a model: a diffusers folder, a .safetensors checkpoint, or a hub id owner/name."),
        ("no/such/folder", "No model 'no/such/folder': it is not a folder with model_index.json, not a"),
        ("sdxl", "No model 'sdxl': it is not a folder with model_index.json, not a .safetensors checkpoint"),
        ("owner/name", "No model 'owner/name': there is no such folder or file, and the hub cache does not hold it; "),
        ("owner/na--me", "No model 'owner/na--me': there is no such folder or file, and the hub cache does not hold"),
        ("missing.ckpt", "missing.ckpt is a pickle, which can run code when opened; convert it to safetensors first."),
    ],
)
def test_unknown_name_says_what_there_is(name, sentence):
    assert refusal(name).startswith(sentence)


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".pt", ".pth", ".CKPT"])
def test_pickle_is_refused_unopened(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(Trap(tmp_path / "trapped")))
    assert refusal(path).endswith("is a pickle, which can run code when opened; convert it to safetensors first.")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    "part, name",
    [("unet", "diffusion_pytorch_model.bin"), ("vae", "diffusion_pytorch_model.ckpt"), ("text_encoder", "model.pt")],
)
def test_part_with_only_a_pickle_is_refused_unopened(folder, part, name):
    [weights] = (folder / part).glob("*.safetensors")
    weights.unlink()
    (folder / part / name).write_bytes(pickle.dumps(Trap(folder / "trapped")))
    assert refusal(folder) == (
        f"The {part} of {folder} is there only as {name}, a pickle, which can run code when opened; save it as "
        f"{part}/{weights.name}."
    )
    assert not (folder / "trapped").exists()


def test_part_without_weights_is_refused(folder):
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert refusal(folder).startswith(f"The vae of {folder} has no weights; save it as vae/diffusion_pytorch_model.")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_part_whose_folder_is_missing_is_refused(folder, part):
    shutil.rmtree(folder / part)
    assert refusal(folder) == f"model_index.json of {folder} names a {part}, but there is no folder {part}; add it."


def test_flux_is_refused_by_its_transformer(tmp_path):
    flux_like(tmp_path)
    assert refusal(tmp_path) == (
        f"{tmp_path} names FluxTransformer2DModel from diffusers as its transformer; what can be edited is Stable "
        "Diffusion 1.x, 2.x or XL (a UNet2DConditionModel that reads CLIP text encoders) and Stable Diffusion 3 or 3.5 "
        "(an SD3Transformer2DModel that reads CLIP and T5)."
    )


@pytest.mark.parametrize(
    "changes, found",
    [
        ({"unet": ["diffusers", "UNet3DConditionModel"]}, "names UNet3DConditionModel from diffusers as its unet"),
        ({"unet": None}, "has no unet or transformer"),
        ({"unet": [None, None]}, "has no unet or transformer"),
        ({"unet": ["mine", "UNet2DConditionModel"]}, "names UNet2DConditionModel from mine as its unet"),
        ({"text_encoder": ["transformers", "T5EncoderModel"]}, "names T5EncoderModel from transformers as its text_e"),
        ({"text_encoder": [None, None]}, "has no text_encoder"),
        ({"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}, "has no tokenizer_2"),
        ({"vae": ["diffusers", "AutoencoderTiny"]}, "names AutoencoderTiny from diffusers as its vae"),
        ({"vae": None, "movq": ["diffusers", "VQModel"]}, "has no vae"),
        ({"controlnet": ["diffusers", "ControlNetModel"]}, "has a further part controlnet (ControlNetModel)"),
        ({"motion_adapter": ["diffusers", "MotionAdapter"]}, "has a further part motion_adapter (MotionAdapter)"),
        ({"image_normalizer": ["stable_diffusion", "Norm"]}, "has a further part image_normalizer (Norm)"),
        ({"scheduler": ["mine", "MyScheduler"]}, "names MyScheduler from mine as its scheduler"),
        ({"scheduler": ["diffusers", "DiffusionPipeline"]}, "names DiffusionPipeline from diffusers as its scheduler"),
        ({"scheduler": None}, "has no scheduler"),
        ({"tokenizer": ["transformers", "AutoModel"]}, "names AutoModel from transformers as its tokenizer"),
    ],
)
def test_other_structure_is_refused_by_what_was_found(folder, changes, found):
    rewrite(folder / "model_index.json", **changes)
    assert refusal(folder).startswith(f"{folder} {found}") and refusal(folder).endswith(ENDING)


@pytest.mark.parametrize(
    "changes, found",
    [
        ({"in_channels": 9}, "has a unet that reads 9 channels and writes 4 where its vae has 4"),  # inpainting
        ({"in_channels": 8}, "has a unet that reads 8 channels and writes 4 where its vae has 4"),  # pix2pix
        ({"out_channels": 8}, "has a unet that reads 4 channels and writes 8 where its vae has 4"),
        ({"down_block_types": ["DownBlock2D", "DownBlock2D"]}, "has a unet without cross-attention"),
        ({"class_embed_type": "projection"}, "has a unet with class_embed_type 'projection'"),
        ({"num_class_embeds": 1000}, "has a unet with num_class_embeds 1000"),
        ({"encoder_hid_dim_type": "image_proj"}, "has a unet with encoder_hid_dim_type 'image_proj'"),
        ({"addition_embed_type": "text_time"}, "has a unet with addition_embed_type 'text_time'"),
    ],
)
def test_unet_made_for_another_job_is_refused(folder, changes, found):
    rewrite(folder / "unet" / "config.json", **changes)
    assert refusal(folder) == f"{folder} {found}{ENDING}"


def test_real_inpainting_model_is_refused(tmp_path):
    tiny_pipelines.tiny_sd(tmp_path, in_channels=9)
    assert " reads 9 channels and writes 4 where its vae has 4; " in refusal(tmp_path)


@pytest.mark.parametrize(
    "bring",
    [
        lambda folder: (folder / "pipeline.py").write_text(f"open({str(folder / 'trapped')!r}, 'w')"),
        lambda folder: (folder / "unet" / "mine.py").write_text(f"open({str(folder / 'trapped')!r}, 'w')"),
        lambda folder: rewrite(folder / "model_index.json", _class_name=["pipeline", "Mine"]),
        lambda folder: rewrite(folder / "text_encoder" / "config.json", auto_map={"AutoModel": "mine.Mine"}),
        lambda folder: rewrite(
            folder / "tokenizer" / "tokenizer_config.json", auto_map={"AutoTokenizer": ["mine.Mine"]}
        ),
    ],
)
def test_code_that_comes_with_a_model_is_refused_and_not_run(folder, bring):
    bring(folder)
    assert "asks to run code that comes with it (" in refusal(folder)
    assert not (folder / "trapped").exists()


@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "vae/config.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "\ud800"])
def test_configuration_that_is_none_is_refused(folder, file, text):
    (folder / file).write_bytes(text.encode("utf-8", "surrogatepass"))
    assert f"{Path(folder, file).parent.name}/{Path(file).name} of {folder} " in refusal(folder)


def test_folder_without_an_index_is_refused(folder):
    (folder / "model_index.json").unlink()
    assert refusal(folder) == f"{folder} has no model_index.json; give a folder as diffusers saves it."


@pytest.mark.parametrize("file", ["unet/config.json", "vae/config.json", "text_encoder/config.json"])
def test_network_without_a_configuration_is_refused(folder, file):
    (folder / file).unlink()
    assert f"{file} of {folder} cannot be read" in refusal(folder)


@pytest.mark.parametrize(
    "kind, part", [("sd", "unet"), ("sd", "vae"), ("sd", "text_encoder"), ("sd3", "text_encoder_3")]
)
def test_missing_tensor_is_named(saved, tmp_path, kind, part):
    folder = Path(shutil.copytree(saved[kind][0], tmp_path / "model"))
    [path] = (folder / part).glob("*.safetensors")
    tensors = load_file(path)
    gone = next(name for name in tensors if name.endswith(".weight"))
    save_file({name: value for name, value in tensors.items() if name != gone}, path, metadata={"format": "pt"})
    assert refusal(folder) in {
        f"The weights of {folder} lack {name} of its {part}; use a complete copy, or the configuration made for it."
        for name in (gone, gone.removeprefix("text_model."))  # some names are shorter once they are loaded
    }


def test_tensor_of_another_shape_is_one_sentence(folder):
    rewrite(folder / "unet" / "config.json", cross_attention_dim=24)
    assert refusal(folder).startswith(f"Cannot load {str(folder)!r}: ")


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
@pytest.mark.parametrize("spoil", [lambda data: data[:2000], lambda data: b"", lambda data: b"\xff" * 100])
def test_corrupt_weights_are_one_sentence(folder, part, spoil):
    [path] = (folder / part).glob("*.safetensors")
    path.write_bytes(spoil(path.read_bytes()))
    assert refusal(folder).startswith(f"Cannot read {path.name} of {folder}: ")


@pytest.mark.parametrize("name", ["../../elsewhere.safetensors", "diffusion_pytorch_model.bin", "missing.safetensors"])
def test_index_of_shards_may_only_name_safetensors_beside_it(folder, name):
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Trap(folder / "trapped")))
    index = {"metadata": {}, "weight_map": {"conv_in.weight": name}}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert f"names {name}, which is not a .safetensors file beside it" in refusal(folder)
    assert not (folder / "trapped").exists()


# ---------------------------------------------------------------- schedulers


def with_scheduler(saved, kind, tmp_path, scheduler):
    """A copy of a folder whose scheduler is another one."""
    folder = Path(shutil.copytree(saved[kind][0], tmp_path / "model"))
    shutil.rmtree(folder / "scheduler")
    scheduler.save_pretrained(folder / "scheduler")
    rewrite(folder / "model_index.json", scheduler=["diffusers", type(scheduler).__name__])
    return folder


FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


@pytest.mark.parametrize(
    "kind, scheduler, predicts",
    [
        ("sdxl", diffusers.EDMEulerScheduler(), "epsilon"),  # as in Playground 2.5
        ("sdxl", diffusers.EDMDPMSolverMultistepScheduler(), "epsilon"),
        ("sd", diffusers.FlowMatchEulerDiscreteScheduler(), "flow"),
        ("sd", diffusers.UniPCMultistepScheduler(**FLOW), "flow_prediction"),
        ("sd", diffusers.IPNDMScheduler(), "nothing it names"),
        ("sd3", diffusers.DDIMScheduler(), "epsilon"),
        ("sd3", diffusers.EDMEulerScheduler(), "epsilon"),
    ],
)
def test_scheduler_that_scoring_cannot_use_is_refused_before_any_weight_is_read(
    saved, tmp_path, monkeypatch, kind, scheduler, predicts
):
    monkeypatch.setattr(pipelines, "_header", lambda *_: pytest.fail("it read weights"))
    folder = with_scheduler(saved, kind, tmp_path, scheduler)
    assert refusal(folder) == (
        f"{folder} has the scheduler {type(scheduler).__name__}, predicting {predicts}, which cannot be scored; what "
        "can is a UNet whose scheduler has alphas_cumprod and predicts epsilon, sample or v_prediction, such as "
        "DDIMScheduler, and Stable Diffusion 3 with one of flow matching."
    )


@pytest.mark.parametrize(
    "kind, scheduler",
    [
        *(("sd", diffusers.DDIMScheduler(prediction_type=kind)) for kind in pipelines.PREDICTIONS),
        ("sd", diffusers.PNDMScheduler(skip_prk_steps=True)),
        ("sdxl", diffusers.DPMSolverMultistepScheduler()),
        ("sd3", diffusers.FlowMatchHeunDiscreteScheduler()),
        ("sd3", diffusers.DPMSolverMultistepScheduler(**FLOW)),
    ],
)
def test_every_scheduler_that_is_let_in_can_be_scored(saved, tmp_path, kind, scheduler):
    adapter = DiffusionAdapter(load(with_scheduler(saved, kind, tmp_path, scheduler)), name=kind)
    clean, noise = torch.full((1, 4, 2, 2), 2.0), torch.full((1, 4, 2, 2), 3.0)
    noisy, timesteps, target = adapter.noised(clean, noise, torch.tensor([1.0]))
    if kind == "sd3":
        assert torch.equal(noisy, noise) and timesteps.item() == 1000 and torch.equal(target, noise - clean)
        return
    a = scheduler.alphas_cumprod[-1]
    assert timesteps.item() == 999 and torch.allclose(noisy, a.sqrt() * clean + (1 - a).sqrt() * noise)
    kinds = {"epsilon": noise, "sample": clean, "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * clean}
    assert torch.allclose(target, kinds[scheduler.config.prediction_type])


def test_scheduler_that_cannot_be_made_is_one_sentence(folder):
    rewrite(folder / "scheduler" / "scheduler_config.json", beta_schedule="mine")
    assert refusal(folder).startswith(f"The scheduler of {folder} cannot be made: mine is not implemented")
    rewrite(folder / "model_index.json", scheduler=["diffusers", "NoSuchScheduler"])
    assert refusal(folder).startswith(f"The scheduler of {folder} cannot be made: ")


# ---------------------------------------------------------------- devices, memory, the card


def bytes_of(pipeline, width):
    """Of everything the networks would save, counting what has two names once."""
    tensors = [v for network in pipelines._networks(pipeline).values() for v in network.state_dict().values()]
    return width * sum({v.data_ptr(): v.numel() for v in tensors}.values())


@pytest.mark.parametrize("kind", KINDS)
def test_memory_needed_is_that_of_the_weights_in_the_precision_of_the_device(saved, kind):
    folder, source = saved[kind]
    assert pipelines.memory_needed(str(folder), device="cpu") == bytes_of(source, 4)
    assert pipelines.memory_needed(str(folder), device="cuda:1") == bytes_of(source, 2)
    assert pipelines.memory_needed(str(folder)) == bytes_of(source, 2 if torch.cuda.is_available() else 4)


def test_memory_of_a_single_file_leaves_out_its_training_averages(saved, checkpoint):
    tensors = load_file(checkpoint)
    save_file(tensors | {"model_ema.decay": torch.zeros(1000)}, checkpoint)
    positions = 4 * tiny_pipelines.TOKENS  # numbers of positions, which such files hold too
    assert pipelines.memory_needed(str(checkpoint), device="cpu") == bytes_of(saved["sd"][1], 4) + positions


def test_too_little_cuda_memory_is_refused_before_any_weight_is_read(saved, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda place: (1_000_000, 80_000_000_000))
    monkeypatch.setattr(pipelines, "_network", lambda *_: pytest.fail("it read weights"))
    assert refusal(saved["sd"][0], device="cuda") == (
        f"The weights of {saved['sd'][0]} need 0.0 GB and cuda has 0.0 GB free. Close pages and programs that use the "
        "card, or use --device cpu."
    )
    assert "use the card, load it with --dtype float16, or use" in refusal(
        saved["sd"][0], device="cuda", dtype="float32"
    )


@pytest.fixture
def meminfo(monkeypatch, tmp_path):
    """bytes -> make the machine say that so many are free."""
    path = tmp_path / "meminfo"
    monkeypatch.setattr(pipelines, "MEMINFO", path)
    return lambda free: path.write_text(f"MemTotal: 999999999 kB\nMemFree: 1 kB\nMemAvailable:   {free // 1024} kB\n")


def test_too_little_memory_of_the_machine_is_refused_before_any_weight_is_read(saved, meminfo, monkeypatch):
    folder, source = saved["sd"]
    meminfo(bytes_of(source, 4) - 1024)
    monkeypatch.setattr(pipelines, "_network", lambda *_: pytest.fail("it read weights"))
    assert refusal(folder) == (
        f"The weights of {folder} need 0.0 GB and this machine has 0.0 GB free. Close pages and programs that use its "
        "memory, load it with --dtype bfloat16, or choose a smaller model."
    )
    meminfo(bytes_of(source, 2) - 1024)
    assert "use its memory, or choose a smaller model." in refusal(folder, dtype="bfloat16")


@pytest.mark.parametrize("dtype, width", [(None, 4), ("bfloat16", 2)])
def test_memory_that_is_just_enough_is_enough(saved, meminfo, dtype, width):
    meminfo(bytes_of(saved["sd"][1], width) + 1024)
    load(saved["sd"][0], dtype=dtype)


def test_memory_that_nobody_tells_of_is_not_looked_at(saved, meminfo, monkeypatch):
    load(saved["sd"][0])  # no such file
    pipelines.MEMINFO.write_text("nonsense")
    load(saved["sd"][0])


def test_room_is_made_once_and_memory_looked_at_again(saved, meminfo):
    folder, source = saved["sd"]
    meminfo(0)
    made = []
    assert "has 0.0 GB free" in refusal(folder, make_room=lambda: made.append(True))
    assert made == [True]
    assert same_networks(load(folder, make_room=lambda: meminfo(bytes_of(source, 4) + 1024)), source)
    load(folder, make_room=lambda: pytest.fail("there was room"))


@pytest.mark.parametrize("kind", KINDS)
def test_precision_can_be_chosen(saved, kind):
    loaded = load(saved[kind][0], dtype="bfloat16")
    assert {p.dtype for network in pipelines._networks(loaded).values() for p in network.parameters()} == {
        torch.bfloat16
    }
    assert pipelines.card_of(loaded)["precision"] == "bfloat16"
    assert np.isfinite(draw(loaded)).all()
    assert pipelines.memory_needed(str(saved[kind][0]), device="cpu", dtype="bfloat16") == bytes_of(saved[kind][1], 2)


def test_full_precision_on_cuda_reads_the_full_precision_files(folder, monkeypatch):
    for path in [*folder.glob("*/*.safetensors")]:
        save_file({k: v.half() for k, v in load_file(path).items()}, path.with_suffix(".fp16.safetensors"))
    read = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda place: (80_000_000_000, 80_000_000_000))
    monkeypatch.setattr(pipelines, "_assemble", lambda _, weights, dtype: read.append((weights["unet"].variant, dtype)))
    for dtype in (None, "float16", "float32"):
        with pytest.raises(ModelError):  # nothing was assembled
            load(folder, device="cuda", dtype=dtype)
    assert read == [("fp16", torch.float16), ("fp16", torch.float16), (None, torch.float32)]


def test_precision_that_the_device_cannot_use_is_one_sentence(folder, monkeypatch):
    assert refusal(folder, dtype="float16") == (
        "float16 is for graphics cards; on a CPU use --dtype float32, or bfloat16 to save memory."
    )
    assert refusal(folder, dtype="int8") == "No precision 'int8'; choose one of float32, float16, bfloat16."
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: False)
    assert refusal(folder, device="cuda", dtype="bfloat16") == (
        "cuda cannot compute in bfloat16; use --dtype float16 or float32."
    )


@pytest.mark.parametrize("kind, precision", [("sd", torch.float16), ("sdxl", torch.float16), ("sd3", torch.bfloat16)])
def test_precision_on_cuda_is_half_and_bfloat16_for_stable_diffusion_3(saved, monkeypatch, kind, precision):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda place: (80_000_000_000, 80_000_000_000))
    monkeypatch.setattr("diffusers.DiffusionPipeline.to", lambda self, place: self)  # there is no card to go to
    loaded = load(saved[kind][0], device="cuda")
    denoiser = loaded.unet if hasattr(loaded, "unet") else loaded.transformer
    assert {denoiser.dtype, loaded.vae.dtype, loaded.text_encoder.dtype} == {precision}


def test_device_that_is_not_there_is_one_sentence(folder, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert refusal(folder, device="cuda") == "No device 'cuda': 0 CUDA cards are here; use --device cpu."
    assert refusal(folder, device="abacus").startswith("No device 'abacus'; use cpu, cuda, or cuda:1")


def test_card_tells_what_a_pipeline_is(saved):
    cards = {kind: pipelines.card_of(pipeline) for kind, (_, pipeline) in saved.items()}
    assert cards["sd"] == {
        "family": "Stable Diffusion 1.x/2.x (UNet)",
        "unet": f"{count(saved['sd'][1].unet):,} parameters",
        "vae": f"{count(saved['sd'][1].vae):,} parameters",
        "text_encoder": f"{count(saved['sd'][1].text_encoder):,} parameters",
        "prediction": "epsilon",
        "size": "16 x 16 px",
        "precision": "float32",
    }
    assert [card["prediction"] for card in cards.values()] == ["epsilon", "v_prediction", "epsilon", "flow"]
    assert [cards[kind]["family"] for kind in ("sd2", "sdxl", "sd3")] == [
        "Stable Diffusion 1.x/2.x (UNet)",
        "Stable Diffusion XL",
        "Stable Diffusion 3 (MMDiT)",
    ]
    assert {"text_encoder_2", "text_encoder_3", "transformer"} < cards["sd3"].keys()


@pytest.mark.parametrize(
    "stated, size, side, told",
    [
        (8, (16, 16), 16, "16 x 16 px"),
        ([12, 8], (24, 16), 16, "16 x 24 px"),
        (None, (128, 128), 128, "128 x 128 px, as is usual for its kind"),
    ],
)
def test_size_of_the_pictures_is_read_in_one_way(folder, stated, size, side, told):
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sample_size": stated}))
    loaded = load(folder)
    assert pipelines.native_size(loaded) == size and pipelines.card_of(loaded)["size"] == told
    assert DiffusionAdapter(loaded, name="sd").native_side == side


@pytest.mark.parametrize("kind, side", [("sd", 64), ("sdxl", 128), ("sd3", 128)])
def test_size_that_is_not_stated_is_that_of_the_kind(saved, tmp_path, kind, side):
    pipeline = load(saved[kind][0])
    denoiser = getattr(pipeline, "unet", None) or pipeline.transformer
    denoiser.register_to_config(sample_size=None)
    assert pipelines.native_size(pipeline) == (2 * side, 2 * side)  # its vae halves each way


@pytest.mark.parametrize("stated", ["big", 0, -8, 8.5, True, [8], [8, 8, 8], [8, None], {}])
def test_size_that_is_none_is_refused_before_any_weight_is_read(folder, monkeypatch, stated):
    monkeypatch.setattr(pipelines, "_header", lambda *_: pytest.fail("it read weights"))
    rewrite(folder / "unet" / "config.json", sample_size=stated)
    assert refusal(folder) == (
        f"{folder} has sample_size {stated!r}; it must be a whole number above 0, or a height and a width."
    )


def test_what_is_cut_is_the_longest_end_that_some_encoder_does_not_read():
    long = "abcdefg hijklmn opq rst"  # the CLIP encoders of Stable Diffusion 3 read 14 letters, its T5 reads on
    adapter = shared("sd3")
    assert adapter.cut("abcdefg hijklmn") == "" and adapter.cut(long) == "opq rst"
    whole, read = adapter.encode([long]), adapter.encode(["abcdefg hijklmn"])
    assert torch.equal(whole.pooled, read.pooled) and not torch.equal(whole.states, read.states)
    beyond_both = " ".join(["hat"] * 90)
    assert adapter.cut(beyond_both).split() == fresh("sd3", t5=False).cut(beyond_both).split() != []
    shorter = fresh("sdxl")
    shorter.pipeline.tokenizer_2.model_max_length = 8
    assert shorter.cut("abcdefghijklmnop") == "ghijklmnop"


def count(network):
    return sum(p.numel() for p in network.parameters())


# ---------------------------------------------------------------- the hub


def into_cache(cache, name, commit="abc123"):
    """Where a hub model's files lie in the cache; the folder itself is still to be made."""
    home = cache / f"models--{name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    (home / "snapshots").mkdir()
    return home / "snapshots" / commit


@pytest.fixture
def hub(saved, cache, tmp_path, monkeypatch):
    """A hub with one model, owner/name, in both precisions, pickles and a readme beside; `fetched` tells what was."""
    store = Path(shutil.copytree(saved["sd"][0], tmp_path / "store"))
    for path in [*store.glob("*/*.safetensors")]:
        shutil.copy(path, path.with_suffix(".fp16.safetensors"))
        path.with_suffix(".bin").write_bytes(pickle.dumps(Trap(tmp_path / "trapped")))
    (store / "README.md").write_text("")
    (store / "dreams.safetensors").write_bytes(b"")
    names = sorted(path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file())
    snapshot = into_cache(cache, "owner/name")
    fetched = []

    def model_info(self, name, timeout):
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in names])

    def snapshot_download(name, allow_patterns, revision=None, dry_run=False):
        wanted = [file for file in names if any(fnmatch(file, pattern) for pattern in allow_patterns)]
        if dry_run:
            return [SimpleNamespace(file_size=(store / f).stat().st_size, will_download=True) for f in wanted]
        for file in wanted:
            (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(store / file, snapshot / file)
        fetched.extend(wanted)
        return str(snapshot)

    def header(self, name, file, revision):
        return SimpleNamespace(parameter_count={"F32": sum(v.numel() for v in load_file(store / file).values())})

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    monkeypatch.setattr("huggingface_hub.HfApi.parse_safetensors_file_metadata", header)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return SimpleNamespace(store=store, fetched=fetched, trapped=tmp_path / "trapped")


def test_hub_model_is_fetched_as_safetensors_alone_then_loads_offline(hub, saved):
    assert same_networks(load("owner/name", offline=False), saved["sd"][1])
    weights = [file for file in hub.fetched if not file.endswith((".json", ".txt"))]
    assert weights == [
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    fetched = len(hub.fetched)
    assert same_networks(load("owner/name"), saved["sd"][1]) and len(hub.fetched) == fetched
    assert not hub.trapped.exists()


def test_memory_of_a_hub_model_is_known_before_its_weights_are_fetched(hub, saved):
    assert pipelines.memory_needed("owner/name", device="cpu", offline=False) == bytes_of(saved["sd"][1], 4)
    assert not any("safetensors" in file for file in hub.fetched)


def test_half_precision_files_of_a_hub_model_are_enough_on_cuda(hub, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda place: (80_000_000_000, 80_000_000_000))
    monkeypatch.setattr("diffusers.DiffusionPipeline.to", lambda self, place: self)
    load("owner/name", device="cuda", offline=False)
    assert {file.partition(".")[2] for file in hub.fetched if "safetensors" in file} == {"fp16.safetensors"}


def test_unsupported_hub_model_is_refused_before_its_weights_are_fetched(hub):
    rewrite(hub.store / "unet" / "config.json", in_channels=9)
    assert "reads 9 channels" in refusal("owner/name", offline=False)
    (hub.store / "model_index.json").write_text(json.dumps({"_class_name": ["pipeline", "Mine"]}))
    assert "asks to run code that comes with it" in refusal("owner/name", offline=False)
    assert not any("safetensors" in file for file in hub.fetched)


def test_hub_model_that_the_disk_cannot_hold_is_refused_before_its_weights_are_fetched(hub, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    assert refusal("owner/name", offline=False) == (
        "owner/name is 0.0 GB to download and the disk of the hub cache has 0.0 GB free; make room, or set HF_HOME to "
        "a larger disk."
    )
    assert not any("safetensors" in file for file in hub.fetched)


def test_hub_repository_that_is_no_pipeline_is_refused(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: SimpleNamespace(siblings=None))
    assert "has no model_index.json on the hub, so it is not a diffusers pipeline" in refusal(
        "owner/name", offline=False
    )


def test_half_fetched_hub_model_is_refused_offline(hub, cache):
    load("owner/name", offline=False)
    next(cache.glob("*/snapshots/*/unet/*.safetensors")).unlink()
    assert refusal("owner/name") == (
        "The unet of owner/name has no weights; save it as unet/diffusion_pytorch_model.safetensors."
    )


def answer(status):
    return SimpleNamespace(status_code=status, headers={}, request=None)


def fail_with(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [
        errors.OfflineModeIsEnabled("Off."),
        ConnectionError("Name not known"),
        errors.HfHubHTTPError("Busy.", response=answer(503)),
    ],
)
def test_fetched_hub_model_opens_again_where_the_hub_is_out_of_reach(hub, saved, monkeypatch, error):
    load("owner/name", offline=False)
    fetched = len(hub.fetched)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fail_with(error))
    monkeypatch.setattr("huggingface_hub.HfApi.parse_safetensors_file_metadata", fail_with(error))
    assert same_networks(load("owner/name", offline=False), saved["sd"][1]) and len(hub.fetched) == fetched
    assert pipelines.memory_needed("owner/name", device="cpu", offline=False) == bytes_of(saved["sd"][1], 4)


@pytest.mark.parametrize("gone", ["unet/*.safetensors", "unet/config.json", "scheduler/*"])
def test_half_fetched_hub_model_is_not_opened_where_the_hub_is_out_of_reach(hub, cache, monkeypatch, gone):
    load("owner/name", offline=False)
    next(cache.glob(f"*/snapshots/*/{gone}")).unlink()
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fail_with(ConnectionError("Name not known")))
    assert refusal("owner/name", offline=False).startswith("Cannot fetch owner/name from the hub (Name not known); ")


@pytest.mark.parametrize("kind", [errors.GatedRepoError, errors.RepositoryNotFoundError])
def test_what_the_hub_keeps_to_itself_is_not_taken_from_the_cache(hub, monkeypatch, kind):
    load("owner/name", offline=False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fail_with(kind("No.", response=answer(403))))
    assert "owner/name" in refusal("owner/name", offline=False)


@pytest.mark.parametrize(
    "error, sentence",
    [
        (
            errors.GatedRepoError("Gated.\nMore.", response=answer(403)),
            "owner/name is gated: accept its terms on its page",
        ),
        (errors.RepositoryNotFoundError("No.", response=answer(404)), "The hub has no model 'owner/name' that this"),
        (errors.HfHubHTTPError("Busy.\nMore.", response=answer(503)), "The hub did not hand out owner/name: Busy."),
        (errors.OfflineModeIsEnabled("Off."), "owner/name is to be downloaded, but HF_HUB_OFFLINE is set; unset it."),
        (
            ConnectionError("Name not known"),
            "Cannot fetch owner/name from the hub (Name not known); check the connec",
        ),
        (OSError(28, "No space left on device"), "Cannot fetch owner/name from the hub ([Errno 28] No space left"),
    ],
)
def test_what_the_hub_objects_to_is_one_sentence(monkeypatch, error, sentence):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fail_with(error))
    assert refusal("owner/name", offline=False).startswith(sentence)
