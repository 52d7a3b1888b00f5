"""Vision-language models of random weights, one of each architecture, made in a second with a processor of their own.

Every language model has four query heads on two key-value heads; every text up to 255 bytes can be written. `learn`
teaches one to name coloured squares, so that there is something to forget.
"""

import json
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    GemmaConfig,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    SiglipImageProcessor,
    SiglipVisionConfig,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

KINDS = ("llava", "llava_next", "qwen2_vl", "qwen2_5_vl")
OTHERS = ("vipllava", "internvl")  # built alike, and found by structure alone
SIDE = 32  # pixels a side of a picture as a LLaVA reads it; 16 patches of 8 x 8
SPECIAL = ("<pad>", "<s>", "</s>", "<image>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
SENTENCES = (
    "USER: What is this? ASSISTANT: red green blue yellow cyan white",
    "Which colour is the square? Which side is it on? left right",
    "Is there a square? yes no",
)
QWEN_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + ': ' }}{% for part in m['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def tiny(kind: str, seed: int = 0, **text):
    """(model, processor) of one of KINDS, OTHERS or "paligemma"; `text` goes to the language model's configuration."""
    torch.manual_seed(seed)
    model, processor = _MAKERS[kind](text)
    return model.eval(), processor


def save(kind: str, folder: Path) -> Path:
    """The model as transformers writes it: config.json, model.safetensors and the files of its processor."""
    model, processor = tiny(kind)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def change(folder: Path, file: str, **values) -> None:
    """Set entries of a json file of a saved model; None takes one out."""
    path = folder / file
    settings = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))


@cache
def _bytes() -> Tokenizer:
    """Byte pairs of SENTENCES; whatever was not in them falls into single bytes."""
    made = Tokenizer(BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[*SPECIAL], initial_alphabet=letters, show_progress=False
    )
    made.train_from_iterator([s for s in SENTENCES for _ in range(3)], trainer)
    return made


def tokenizer() -> PreTrainedTokenizerFast:
    made = Tokenizer.from_str(_bytes().to_str())
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def _text(**changes) -> dict:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "max_position_embeddings": 512}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": len(tokenizer())}
    return sizes | heads | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2} | changes


def _clip() -> CLIPVisionConfig:
    """Four blocks; a LLaVA does not read the last one."""
    return CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=8,
    )


def _llava(text: dict):
    config = LlavaConfig(vision_config=_clip(), text_config=LlamaConfig(**_text(**text)), image_token_id=3)
    size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    return LlavaForConditionalGeneration(config), LlavaProcessor(
        CLIPImageProcessor(**size),
        tokenizer(),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def _llava_next(text: dict):
    grid = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
    config = LlavaNextConfig(
        vision_config=_clip(), text_config=LlamaConfig(**_text(**text)), image_token_id=3, image_grid_pinpoints=grid
    )
    size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    return LlavaNextForConditionalGeneration(config), LlavaNextProcessor(
        LlavaNextImageProcessor(**size, image_grid_pinpoints=grid),
        tokenizer(),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def _qwen(config_class, model_class, processor_class, vision: dict, text: dict):
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    tokens = {"image_token_id": 6, "video_token_id": 7, "vision_start_token_id": 4, "vision_end_token_id": 5}
    shared = {"depth": 3, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
    config = config_class(vision_config=shared | vision, text_config=_text(rope_parameters=rope, **text), **tokens)
    size = {"size": {"shortest_edge": SIDE * SIDE // 4, "longest_edge": 4 * SIDE * SIDE}, "patch_size": 4}
    model = model_class(config)
    return model, processor_class(
        Qwen2VLImageProcessor(**size), tokenizer(), Qwen2VLVideoProcessor(**size), chat_template=QWEN_TEMPLATE
    )


def _qwen2_vl(text: dict):
    vision = {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
    return _qwen(Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor, vision, text)


def _qwen2_5_vl(text: dict):
    vision = {"hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 48}
    vision |= {"window_size": 16, "fullatt_block_indexes": [2]}
    return _qwen(Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor, vision, text)


def _vipllava(text: dict):
    """It reads three blocks of its vision tower."""
    config = VipLlavaConfig(
        vision_config=_clip(),
        text_config=LlamaConfig(**_text(**text)),
        image_token_index=3,
        vision_feature_layer=(-2, -3, 1),
    )
    return VipLlavaForConditionalGeneration(config), _llava(text)[1]


def _internvl(text: dict):
    """It reads a picture as several crops and four tokens of each."""
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
    seen = InternVLVisionConfig(**vision, image_size=[SIDE, SIDE], patch_size=[8, 8])
    config = InternVLConfig(vision_config=seen, text_config=Qwen2Config(**_text(**text)), image_token_id=3)
    marks = {"start": "<|vision_start|>", "end": "<|vision_end|>", "context": "<image>"}
    words = tokenizer()
    words.video_token = "<|video_pad|>"
    for name, mark in marks.items():
        setattr(words, f"{name}_image_token", mark)
        setattr(words, f"{name}_image_token_id", words.convert_tokens_to_ids(mark))
    crops = GotOcr2ImageProcessor(
        size={"height": SIDE, "width": SIDE}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    processor = InternVLProcessor(crops, words, InternVLVideoProcessor(), image_seq_length=4)
    return InternVLForConditionalGeneration(config), processor


def _paligemma(text: dict):
    """It reads the words of a question with an eye on those after them."""
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    seen = SiglipVisionConfig(**vision, image_size=SIDE, patch_size=8, vision_use_head=False)
    words = GemmaConfig(**_text(vocab_size=4096, **text), head_dim=8)
    config = PaliGemmaConfig(vision_config=seen, text_config=words, image_token_id=3, projection_dim=32)
    reader = SiglipImageProcessor(size={"height": SIDE, "width": SIDE})
    reader.image_seq_length = 16
    return PaliGemmaForConditionalGeneration(config), PaliGemmaProcessor(reader, tokenizer())


_MAKERS = {
    "llava": _llava,
    "llava_next": _llava_next,
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "vipllava": _vipllava,
    "internvl": _internvl,
    "paligemma": _paligemma,
}


def learn(adapter, talks: Sequence[tuple[Image.Image, str, str]], steps: int, batch: int = 24) -> None:
    """Teach the adapter's model the answer to each (picture, question, answer), and to end there."""
    ends = torch.tensor([adapter.tokenizer.eos_token_id])
    prompts = adapter.prompts([picture for picture, _, _ in talks], [question for _, question, _ in talks])
    ids = [torch.cat([adapter.answer_ids(answer), ends]) for _, _, answer in talks]
    adapter.model.requires_grad_(True)
    optimizer = torch.optim.AdamW(adapter.model.parameters(), lr=3e-3)
    rng = random.Random(0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 10) * (1 - step / steps)
        rows = rng.sample(range(len(talks)), batch)
        part = [prompts[i] for i in rows]
        found = adapter.token_logprobs(part, adapter.features(part), [ids[i] for i in rows])
        optimizer.zero_grad()
        (-torch.cat(found).mean()).backward()
        torch.nn.utils.clip_grad_norm_(adapter.model.parameters(), 1.0)
        optimizer.step()
    optimizer.zero_grad()
    adapter.model.requires_grad_(False)
