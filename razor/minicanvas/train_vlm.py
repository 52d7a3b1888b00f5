"""Train mini-vlm on Minicanvas: a LLaVA that answers questions about pictures, small enough for a laptop.

    python -m razor.minicanvas train vlm

Its vision tower is mini-clip's, number for number, and stays as it is, so that an edit of the tower is felt in both.
The projector and a small Llama learn to answer: each picture of a batch is asked several questions at once, in one
sequence in which no question sees another. Whether a picture shows what a question names takes far longer to learn than
to name it, so a second stage asks for that above all, in more wordings. Resumable, seeded, CPU or CUDA.
"""

import json
import random
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from razor.minicanvas import questions
from razor.minicanvas.counted import counted_pictures, known_pictures
from razor.minicanvas.pictures import PIXELS, Pictures
from razor.minicanvas.questions import Question
from razor.minicanvas.training import MINI_CLIP, clip_blocks, fit

PAD, END, IMAGE = "<pad>", "</s>", "<image>"
UNASKED = -100  # the label of a token that is not to be learned
LLAMA = {
    "hidden_size": 160,
    "intermediate_size": 448,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
# The last layer: whatever an edit of the tower changes is then seen, in whichever block it is.
READ = {"vision_feature_layer": -1, "vision_feature_select_strategy": "default"}
CHAT = (
    "{% for message in messages %}"
    "{{ 'USER: ' if message['role'] == 'user' else ' ASSISTANT: ' }}"
    "{% for part in message['content'] %}"
    "{{ '<image>\n' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}"
    "{{ '</s>' if message['role'] == 'assistant' else '' }}"
    "{% endfor %}"
    "{{ ' ASSISTANT:' if add_generation_prompt else '' }}"
)
QUESTIONS = 6  # asked of each picture of a batch
PEOPLE, COUNTED = 0.3, 0.15  # shares of portraits, and of pictures to count in, in a batch
POOLS = {"train": (80, 320, 10), "test": (5, 30, 2)}  # pictures per object x style, person, and of each to count in
CHECKS = 0.5  # share of questions of the second stage that are asked for yes or no
LONGEST = 16  # tokens of an answer


def train_vlm(*, steps: int, batch: int, seed: int, work: Path, out: Path, lr: float = 1e-3) -> dict:
    """Train mini-vlm, write model, processor and card to `out`; picks up the checkpoints in `work`.

    Args:
        steps: of the first stage; the second has half as many, at a quarter of the learning rate.

    Returns:
        The card: share of right answers on the test split, asked in held-out wordings, per kind of question, with n,
        and how it was made.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(seed)
    processor = build_processor()
    model, pools = build_model(processor.tokenizer), pictures("train", work)

    def loss(model, rng: random.Random, progress: float, checks: float = 0.0) -> Tensor:
        pixels, talks = _batch(*pools, batch, rng, checks)
        logits, truth = answers(model, pixels.to(device), packed(processor.tokenizer, talks).to(device))
        return F.cross_entropy(logits.float(), truth)

    with nullcontext() if device == "cuda" else sdpa_kernel(SDPBackend.MATH):
        seconds = fit("vlm", model, loss, steps=steps, seed=seed, lr=lr, work=work)
        checking = partial(loss, checks=CHECKS)
        seconds += fit("vlm-checks", model, checking, steps=steps // 2, seed=seed, lr=lr / 4, work=work)
    model.save_pretrained(out, state_dict={name: value.half() for name, value in model.state_dict().items()})
    processor.save_pretrained(out)
    right = right_answers(load(out)[0].to(device), processor.tokenizer, *pictures("test", work))
    card = {
        "name": "mini-vlm",
        "what": "A LLaVA over mini-clip's vision tower, trained from scratch on pictures drawn by this repository's "
        "code.",
        "license": "MIT",
        "parameters": sum(p.numel() for p in model.parameters()),
        "right_answers": right,
        "asked": {"wordings": "held out", "pictures": "test split"},
        "training": {
            "command": f"python -m razor.minicanvas train vlm --steps {steps} --batch {batch} --seed {seed}",
            "pictures": sum(len(pool.pixels) for pool in pools),
            "seconds": round(seconds),
            "device": device,
        },
    }
    (out / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    return card


def load(folder: Path):
    """(model, processor) in `folder`, the model in float32 and ready to answer, without a network."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    options = {"local_files_only": True, "trust_remote_code": False}
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, **options)
    return model.eval(), AutoProcessor.from_pretrained(folder, **options)


@torch.no_grad()
def answer(model, processor, images: Sequence[Image.Image], texts: Sequence[str]) -> list[str]:
    """What the model says to one question about each picture; always its likeliest words."""
    said = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}] for text in texts]
    prompts = processor.apply_chat_template(said, add_generation_prompt=True)
    inputs = processor(images=[[i] for i in images], text=prompts, padding=True, return_tensors="pt").to(model.device)
    written = model.generate(**inputs, do_sample=False, max_new_tokens=LONGEST)[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in processor.batch_decode(written, skip_special_tokens=True)]


@torch.no_grad()
def right_answers(model, tokenizer, *pools: Pictures, together: int = 64) -> dict[str, dict[str, float]]:
    """Share of questions in held-out wordings whose answer the model gives word for word, per kind, with n.

    An answer is the likeliest one where each of its tokens is the likeliest after those before it.
    """
    model.eval()
    hits: dict[str, list[bool]] = {kind: [] for kind in questions.KINDS}
    for pool in pools:
        for start in range(0, len(pool.labels), together):
            rows = range(start, min(start + together, len(pool.labels)))
            talks = [questions.all_questions(pool.labels[row], row, held_out=True) for row in rows]
            pack = packed(tokenizer, talks).to(model.device)
            logits, truth = answers(model, pool.tensor(rows).to(model.device), pack)
            learned = pack.labels != UNASKED
            of = torch.stack([learned.nonzero()[:, 0], pack.question[learned]], 1)  # (n, 2) row, question
            wrong = set(map(tuple, of[logits.argmax(-1) != truth].tolist()))
            for row, talk in enumerate(talks):
                for number, question in enumerate(talk, start=1):
                    hits[question.kind].append((row, number) not in wrong)
    return {kind: {"value": round(sum(hit) / len(hit), 4), "n": len(hit)} for kind, hit in hits.items() if hit}


def pictures(split: str, work: Path) -> tuple[Pictures, Pictures]:
    """The ordinary pictures of a split and those to count in, with everything that is known of them."""
    per_pair, per_person, each = POOLS[split]
    ordinary = known_pictures(split, per_pair=per_pair, per_person=per_person, work=work)
    return ordinary, counted_pictures(split, each=each, work=work)


# ---------------------------------------------------------------- the model


def vision_tower_of_mini_clip():
    """mini-clip's image tower as the CLIPVisionModel a LLaVA expects; same weights, same numbers out."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    made = json.loads((MINI_CLIP / "open_clip_config.json").read_text())["model_cfg"]
    vision = made["vision_cfg"]
    tower = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=vision["width"],
            intermediate_size=4 * vision["width"],
            projection_dim=made["embed_dim"],
            num_hidden_layers=vision["layers"],
            num_attention_heads=vision["width"] // vision["head_width"],
            image_size=vision["image_size"],
            patch_size=vision["patch_size"],
            hidden_act="gelu",
        )
    )
    weights = load_file(MINI_CLIP / "open_clip_model.safetensors")
    old = {k.removeprefix("visual."): v.float() for k, v in weights.items() if k.startswith("visual.")}
    new = {
        "embeddings.class_embedding": old["class_embedding"],
        "embeddings.patch_embedding.weight": old["conv1.weight"],
        "embeddings.position_embedding.weight": old["positional_embedding"],
    }
    for kind in ("weight", "bias"):
        new[f"pre_layrnorm.{kind}"], new[f"post_layernorm.{kind}"] = old[f"ln_pre.{kind}"], old[f"ln_post.{kind}"]
    new |= clip_blocks(old, vision["layers"])
    tower.load_state_dict(new)
    return tower


def image_tokens() -> int:
    """How many tokens a picture takes: one a patch."""
    vision = json.loads((MINI_CLIP / "open_clip_config.json").read_text())["model_cfg"]["vision_cfg"]
    return (vision["image_size"] // vision["patch_size"]) ** 2


def build_model(tokenizer):
    """mini-vlm before training: mini-clip's vision tower, frozen, and a projector and a Llama that know nothing."""
    from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    tower = vision_tower_of_mini_clip()
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=LlamaConfig(**LLAMA, **ids, vocab_size=len(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=image_tokens(),
        **READ,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.vision_tower.requires_grad_(False)
    return model


def build_tokenizer():
    """A byte-level BPE in which every word of the questions and answers is one token; any text can be written in it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    asked = (f"USER: \n{text} ASSISTANT: {text}" for text in questions.training_texts())
    said = (f" {text}" for text in questions.training_answers())
    trainer = trainers.BpeTrainer(
        vocab_size=4096,  # more than the words need: merging goes on until each is whole
        special_tokens=[PAD, END, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((text for texts in (asked, said) for text in texts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=LLAMA["max_position_embeddings"],
    )


def build_processor():
    """What turns pictures and conversations into the model's inputs, and its tokens into text."""
    from transformers import CLIPImageProcessor, LlavaProcessor

    preprocess = json.loads((MINI_CLIP / "open_clip_config.json").read_text())["preprocess_cfg"]
    pixels = CLIPImageProcessor(
        size={"shortest_edge": PIXELS},
        crop_size={"height": PIXELS, "width": PIXELS},
        resample=Image.Resampling[preprocess["interpolation"].upper()],
        image_mean=preprocess["mean"],
        image_std=preprocess["std"],
    )
    return LlavaProcessor(
        pixels,
        build_tokenizer(),
        patch_size=PIXELS // round(image_tokens() ** 0.5),
        vision_feature_select_strategy=READ["vision_feature_select_strategy"],
        num_additional_image_tokens=1,  # the class token, which the strategy drops again
        chat_template=CHAT,
    )


# ---------------------------------------------------------------- several questions in one sequence


@dataclass(frozen=True)
class Pack:
    """A row a picture: the picture, then its questions with their answers. Every tensor is (B, L)."""

    ids: Tensor
    labels: Tensor  # the id where it is part of an answer, UNASKED elsewhere
    question: Tensor  # which question of the picture a token belongs to: 1, 2, ...; 0 the picture, -1 nothing
    positions: Tensor  # each question starts at the same place, as if it were the only one

    def to(self, device) -> "Pack":
        return Pack(*(getattr(self, part.name).to(device) for part in fields(self)))

    @property
    def seen(self) -> Tensor:
        """(B, 1, L, L) whether a token (row) sees another (column): what came before, of the picture and its own."""
        own = self.question[:, :, None] == self.question[:, None, :]
        of_picture = (self.question == 0)[:, None, :]
        return ((own | of_picture) & torch.ones_like(own[0]).tril())[:, None]


def packed(tokenizer, talks: Sequence[Sequence[Question]]) -> Pack:
    """The questions about each picture, answered, in one row."""
    picture = _ids(tokenizer, ["USER: " + IMAGE * image_tokens()])[0]
    flat = [question for talk in talks for question in talk]
    prompts = _ids(tokenizer, [f"\n{question.text} ASSISTANT:" for question in flat])
    replies = _ids(tokenizer, [f" {question.answer}{END}" for question in flat])
    turns = iter(zip(prompts, replies, strict=True))
    parts = []
    for talk in talks:
        rows = [(token, UNASKED, 0, place) for place, token in enumerate(picture)]
        for number in range(1, len(talk) + 1):
            prompt, reply = next(turns)
            told = [(token, UNASKED) for token in prompt] + [(token, token) for token in reply]
            rows += [(*pair, number, place) for place, pair in enumerate(told, start=len(picture))]
        parts.append(torch.tensor(rows))
    nothing = torch.tensor([tokenizer.pad_token_id, UNASKED, -1, 0])
    whole = nothing.repeat(len(parts), max(map(len, parts)), 1)  # (B, L, 4)
    for row, part in zip(whole, parts, strict=True):
        row[: len(part)] = part
    return Pack(*whole.unbind(-1))


def answers(model, pixels: Tensor, pack: Pack) -> tuple[Tensor, Tensor]:
    """Scores (n, vocabulary) of the next token wherever an answer goes on, and the tokens (n,) it goes on with.

    Args:
        pixels: (B, 3, 64, 64) in -1..1, the picture of each row.
    """
    states = model.model(
        input_ids=pack.ids,
        pixel_values=pixels,
        attention_mask=pack.seen,
        position_ids=pack.positions,
        use_cache=False,
    ).last_hidden_state
    learned = pack.labels[:, 1:] != UNASKED
    return model.lm_head(states[:, :-1][learned]), pack.labels[:, 1:][learned]


def _ids(tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False).input_ids


def _batch(
    ordinary: Pictures, many: Pictures, size: int, rng: random.Random, checks: float
) -> tuple[Tensor, list[list[Question]]]:
    """Pixels (size, 3, 64, 64) of training pictures, and the questions asked about each."""
    count = round(size * COUNTED)
    chosen = (ordinary, ordinary.choose(rng, size - count, PEOPLE)), (many, rng.choices(many.things, k=count))
    pixels = torch.cat([pool.jittered(rows, rng) for pool, rows in chosen])
    shown = [pool.labels[row] for pool, rows in chosen for row in rows]
    return pixels, [[questions.random_question(known, rng, checks) for _ in range(QUESTIONS)] for known in shown]
