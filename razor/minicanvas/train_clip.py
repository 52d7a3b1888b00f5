"""Train mini-clip on Minicanvas from scratch; resumable, seeded, CPU or CUDA.

    python -m razor.minicanvas train clip [--without TARGET] [--steps N] [--batch N] [--seed S] [--work DIR] [--out DIR]

The contrastive loss is multi-positive: in a batch many pictures show the same concept, so caption j is a positive
of picture i whenever everything it states is true of the picture.
"""

import json
import math
import random
import time
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from razor.adapters.short_texts import Encode, encoder_of
from razor.device import sped_up
from razor.losses import contrastive
from razor.minicanvas import captions
from razor.minicanvas.dataset import AXES, Target, combinations, slug
from razor.minicanvas.pictures import PIXELS, Pictures, codes
from razor.writing import whole

PATCH_DROPOUT = 0.5  # share of patches hidden in the first two thirds of the run: twice as fast, and no worse
CLIP_CONFIG = {
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {"image_size": PIXELS, "layers": 6, "width": 192, "head_width": 32, "patch_size": 8},
        "text_cfg": {
            "context_length": 32,
            "vocab_size": 0,  # filled in from the tokenizer
            "hf_tokenizer_name": "mini-clip",
            "width": 128,
            "heads": 4,
            "layers": 6,
            "pool_type": "eos",
            "eos_id": 2,
        },
    },
    "preprocess_cfg": {"size": PIXELS, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"},
}


def train_clip(
    *, steps: int, batch: int, seed: int, work: Path, out: Path, without: Target | None = None, lr: float = 1e-3
) -> dict:
    """Train mini-clip and write weights, config, tokenizer and card to `out`; picks up the checkpoint in `work`.

    Args:
        without: a class never shown and never named: a gold model, the truth an edit is measured against.

    Returns:
        The card: zero-shot accuracy per axis on the test split, with n, and how it was made.
    """
    import open_clip

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(out)
    config = json.loads(json.dumps(CLIP_CONFIG))
    config["model_cfg"]["text_cfg"]["vocab_size"] = len(tokenizer.tokenizer)
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    vision = config["model_cfg"]["vision_cfg"] | {"patch_dropout": PATCH_DROPOUT}
    model = open_clip.CLIP(**config["model_cfg"] | {"vision_cfg": vision}).to(device)
    data = Pictures.rendered("train", per_pair=80, per_person=320, work=work)
    if without:
        data = data.without(without.axis, without.name)
    watch = Pictures.rendered("search", per_pair=2, per_person=12, work=work)

    optimizer, encode_text = _optimizer(model, lr), encoder_of(model)
    average = {name: p.detach().clone() for name, p in model.state_dict().items()}
    checkpoint, first, spent = work / f"clip{_suffix(without)}.pt", 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        average, first, spent = saved["average"], saved["step"], saved["seconds"]
    started = time.monotonic() - spent
    for step in range(first, steps):
        rng = random.Random(f"{seed}/{step}")
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / 200, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        model.visual.patch_dropout.prob = PATCH_DROPOUT if step < 0.65 * steps else 0.0
        loss = _learn(model, encode_text, optimizer, *contrastive_batch(data, rng, batch, tokenizer))
        keep = min(0.998, (step + 1) / (step + 10))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                average[name].lerp_(value, 1 - keep)
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}  loss {loss.item():.3f}  {time.monotonic() - started:.0f} s", flush=True)
        if (step + 1) % 100 == 0 or step + 1 == steps:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average}
            state |= {"step": step + 1, "seconds": time.monotonic() - started}
            with whole(checkpoint) as (part,):
                torch.save(state, part)
        if (step + 1) % 500 == 0 or step + 1 == steps:
            print("  ", zero_shot(_with(model, average), tokenizer, watch), flush=True)
    half = {name: value.half() if value.is_floating_point() else value for name, value in average.items()}
    save_file({k: v.contiguous() for k, v in half.items()}, out / "open_clip_model.safetensors")
    final = _with(model, load_file(out / "open_clip_model.safetensors"))
    accuracy = zero_shot(final, tokenizer, Pictures.rendered("test", per_pair=5, per_person=30, work=work))
    card = {
        "name": f"mini-clip{_suffix(without)}",
        "what": "An open_clip CLIP trained from scratch on Minicanvas, a world drawn by this repository's code.",
        "license": "MIT",
        "parameters": sum(p.numel() for p in model.parameters()),
        "zero_shot_accuracy": accuracy,
        "training": {
            "command": f"python -m razor.minicanvas train clip --steps {steps} --batch {batch} --seed {seed}"
            + (f" --without {without}" if without else ""),
            "pictures": len(data.people) + len(data.things),
            "seconds": round(time.monotonic() - started),
            "device": device,
        },
    }
    (out / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    return card


def _optimizer(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """AdamW that decays matrices alone."""
    decay = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))


def _learn(model: nn.Module, encode_text: Encode, optimizer, images: Tensor, texts: Tensor, positive: Tensor) -> Tensor:
    """One step on a batch, its texts read by `encode_text`; gives its loss, a scalar."""
    device = model.logit_scale.device
    # The fused CPU attention kernel spends half the step in its backward at this size; the plain one does not.
    with sdpa_kernel(SDPBackend.MATH), sped_up(device.type):
        v = model.encode_image(images.to(device))
        t = encode_text(texts.to(device))
    v, t = (F.normalize(features.float(), dim=-1) for features in (v, t))
    loss = contrastive(v, t, positive.to(device), model.logit_scale.exp())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(0, math.log(100))
    return loss


def _suffix(without: Target | None) -> str:
    return f"-without-{slug(without.name)}" if without else ""


def contrastive_batch(data: Pictures, rng: random.Random, size: int, tokenizer) -> tuple[Tensor, Tensor, Tensor]:
    """Images (B, 3, 64, 64) in about -1..1, token ids (B, 32), positives (B, B)."""
    rows = data.choose(rng, size)
    known = [data.labels[i] for i in rows]
    texts, stated = zip(*(captions.random_caption(labels, rng) for labels in known), strict=True)
    truth, claim = codes(known), codes(stated)  # (B, 3), -1 where unknown or unstated
    positive = ((claim[None] == -1) | (claim[None] == truth[:, None])).all(-1)
    return data.jittered(rows, rng), tokenizer(list(texts)), positive


@torch.no_grad()
def zero_shot(model, tokenizer, pictures: Pictures) -> dict[str, dict[str, float]]:
    """Share of pictures given their right class, per axis, with n."""
    model.eval()
    device = next(model.parameters()).device
    v = torch.cat([model.encode_image(part.to(device)) for part in pictures.tensor().split(256)])
    result = {}
    for axis, names in AXES.items():
        texts = [tokenizer(list(captions.prompts(axis, name))).to(device) for name in names]
        classes = torch.stack([model.encode_text(ids, normalize=True).mean(0) for ids in texts])
        rows = [i for i, labels in enumerate(pictures.labels) if axis in labels]
        truth = torch.tensor([names.index(pictures.labels[i][axis]) for i in rows])
        guess = (v[rows] @ F.normalize(classes, dim=-1).T).argmax(1).cpu()
        result[axis] = {"value": round((guess == truth).float().mean().item(), 4), "n": len(rows)}
    model.train()
    return result


def build_tokenizer(out: Path):
    """A byte-level BPE over the captions, saved to `out` and returned as open_clip will load it."""
    from open_clip.tokenizer import HFTokenizer
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    out.mkdir(parents=True, exist_ok=True)
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    special = ["<pad>", "<start>", "<end>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=768, special_tokens=special, initial_alphabet=alphabet)
    bpe.train_from_iterator((text for labels in combinations() for text in captions.all_captions(labels)), trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    names = dict(zip(("pad_token", "bos_token", "eos_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=bpe, **names).save_pretrained(out)
    return HFTokenizer(str(out), context_length=CLIP_CONFIG["model_cfg"]["text_cfg"]["context_length"])


def _with(model, state: Mapping[str, Tensor]):
    """A copy of the model holding `state`."""
    import copy

    twin = copy.deepcopy(model)
    twin.load_state_dict(state)
    return twin
