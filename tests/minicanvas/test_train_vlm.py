"""mini-vlm: sees exactly what mini-clip sees, reads and writes every word, learns only answers, loads as any LLaVA."""

import random

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from razor.minicanvas import questions, train_vlm
from razor.minicanvas.counted import draw_counted
from razor.minicanvas.dataset import combinations, draw
from razor.minicanvas.judge import to_pixels
from razor.minicanvas.pictures import Pictures
from razor.minicanvas.questions import Question, all_questions
from razor.minicanvas.train_vlm import END, IMAGE, UNASKED, answers, packed
from razor.minicanvas.training import MINI_CLIP

FACTS = (
    {"object": "cat", "style": "photo", "count": "one", "colour": "grey"},
    {"object": "key", "style": "neon", "count": "one"},
    {"identity": "Mara Voss"},
    {"identity": "Kofi Brandt"},
)
MANY = {"style": "chalk", "count": "three"}


@pytest.fixture(scope="module")
def images():
    """Four ordinary pictures and one of three things."""
    known = [{axis: name for axis, name in fact.items() if axis not in ("count", "colour")} for fact in FACTS]
    return [draw(labels, "test", 0) for labels in known] + [
        draw_counted({"object": "dog", "style": "chalk"}, 3, "test", 0)
    ]


@pytest.fixture(scope="module")
def processor():
    return train_vlm.build_processor()


@pytest.fixture(scope="module")
def model(processor):
    torch.manual_seed(0)
    return train_vlm.build_model(processor.tokenizer).eval()


def pools(images):
    """Those pictures as the training loop and the evaluation read them."""
    pixels = to_pixels(images).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return Pictures(pixels[:4], FACTS), Pictures(pixels[4:], [MANY])


# ---------------------------------------------------------------- what it sees


def test_vision_tower_gives_the_numbers_mini_clip_gives(images):
    tower = train_vlm.vision_tower_of_mini_clip().eval()
    clip, _, _ = open_clip.create_model_and_transforms(f"local-dir:{MINI_CLIP}")
    clip.eval()
    outputs = []
    for block in clip.visual.transformer.resblocks:
        block.register_forward_hook(lambda _m, _i, output: outputs.append(output))
    pixels = to_pixels(images)
    with torch.no_grad():
        seen = tower(pixels, output_hidden_states=True)
        embedding = clip.encode_image(pixels)
    assert len(seen.hidden_states) == len(outputs) + 1 == 7
    for here, there in zip(seen.hidden_states[1:], outputs, strict=True):
        torch.testing.assert_close(here, there, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(seen.pooler_output @ clip.visual.proj, embedding, atol=1e-5, rtol=1e-5)


def test_processor_reads_pictures_as_training_does(images, processor):
    read = processor.image_processor(images=images, return_tensors="pt").pixel_values
    assert read.shape == (5, 3, 64, 64)
    assert (read - to_pixels(images)).abs().max() < 3 / 127.5  # Pillow and torchvision round differently


def test_heads_are_grouped_and_the_tower_is_frozen(model):
    layer = model.model.language_model.layers[0].self_attn
    assert layer.q_proj.weight.shape == (160, 160) and layer.k_proj.weight.shape == (80, 160)
    assert not any(p.requires_grad for p in model.model.vision_tower.parameters())
    assert all(p.requires_grad for p in model.model.language_model.parameters())


# ---------------------------------------------------------------- what it reads and says


def spoken():
    """Every question, in training and held out, and every answer."""
    yield from questions.training_texts()
    for known in (*combinations(), *FACTS, MANY):
        for wording in (0, 1):
            for question in all_questions(known, wording, held_out=True):
                yield from (question.text, question.answer)


def test_every_word_is_one_token_and_comes_back_as_it_was(processor):
    tokenizer = processor.tokenizer
    for text in sorted(set(spoken())):
        ids = tokenizer(f" {text}", add_special_tokens=False).input_ids
        words = text.replace("?", " ?").replace(".", " .").replace(",", " ,").split()
        assert len(ids) == len(words)
        assert tokenizer.decode(ids) == f" {text}"


def test_held_out_wordings_use_trained_tokens_alone(processor):
    read = processor.tokenizer
    trained = {t for text in questions.training_texts() for t in read(f"\n{text} ASSISTANT:").input_ids}
    for known in (*combinations(), *FACTS, MANY):
        for question in (q for wording in (0, 1) for q in all_questions(known, wording, held_out=True)):
            assert set(read(f"\n{question.text} ASSISTANT:").input_ids) <= trained


@pytest.mark.parametrize("text", ["Où est le château?", "zebra 42 \U0001f600", "<b>what</b>\ttab"])
def test_any_text_can_be_asked(processor, text):
    assert processor.tokenizer.unk_token is None
    assert processor.tokenizer.decode(processor.tokenizer(text, add_special_tokens=False).input_ids) == text


def prompts(processor, images, asked, *, answered):
    """The processor's own inputs for one conversation a picture."""
    talks = []
    for question in asked:
        said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]}]
        said += [{"role": "assistant", "content": [{"type": "text", "text": question.answer}]}] * answered
        talks.append(processor.apply_chat_template(said, add_generation_prompt=not answered))
    return processor(images=[[i] for i in images], text=talks, padding=True, return_tensors="pt")


def test_chat_template_is_the_conversation_learned(processor, images):
    asked = Question("Who is this?", "Mara Voss", "who", ("identity",))
    said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": asked.text}]}]
    prompt = processor.apply_chat_template(said, add_generation_prompt=True)
    assert prompt == f"USER: {IMAGE}\nWho is this? ASSISTANT:"
    whole = prompts(processor, images[2:3], [asked], answered=True).input_ids
    assert torch.equal(packed(processor.tokenizer, [[asked]]).ids, whole)
    assert (whole == processor.tokenizer.convert_tokens_to_ids(IMAGE)).sum() == train_vlm.image_tokens() == 64


# ---------------------------------------------------------------- what it learns


def test_only_answers_are_learned(processor):
    talk = all_questions(FACTS[0])
    pack = packed(processor.tokenizer, [talk, talk[:2]])
    assert torch.equal(pack.labels[pack.labels != UNASKED], pack.ids[pack.labels != UNASKED])
    for row, shown in enumerate((talk, talk[:2])):
        for number, question in enumerate(shown, start=1):
            of_it = pack.labels[row][pack.question[row] == number]
            assert processor.tokenizer.decode(of_it[of_it != UNASKED]) == f" {question.answer}{END}"
    assert (pack.labels[pack.question <= 0] == UNASKED).all()


def test_packed_questions_are_answered_as_if_each_was_asked_alone(model, processor, images):
    talks = [all_questions(FACTS[0]), all_questions(FACTS[2])]
    pixels = processor.image_processor(images=[images[0], images[2]], return_tensors="pt").pixel_values
    with torch.no_grad():
        together, _ = answers(model, pixels, packed(processor.tokenizer, talks))
        alone = []
        for image, talk in zip((images[0], images[2]), talks, strict=True):
            for question in talk:
                inputs = prompts(processor, [image], [question], answered=True)
                length = len(processor.tokenizer(f" {question.answer}{END}", add_special_tokens=False).input_ids)
                alone.append(model(**inputs).logits[0, -length - 1 : -1])
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------- the training run


@pytest.fixture(scope="module")
def trained(tmp_path_factory, images):
    """A run of 3 steps over five pictures, then the same command again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_vlm, "pictures", lambda split, work: pools(images))
        work, out = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("mini-vlm")
        run = {"steps": 3, "batch": 5, "seed": 0, "work": work, "out": out}
        card = train_vlm.train_vlm(**run)
        first = load_file(out / "model.safetensors")
        train_vlm.train_vlm(**run)
    return out, card, first


def test_folder_loads_through_the_auto_classes(trained):
    from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

    model = AutoModelForImageTextToText.from_pretrained(trained[0], local_files_only=True)
    assert type(model) is LlavaForConditionalGeneration and model.dtype == torch.float32
    assert type(AutoProcessor.from_pretrained(trained[0], local_files_only=True)) is LlavaProcessor


def test_generation_is_the_same_every_time_and_alone_or_in_a_batch(trained, images):
    model, processor = train_vlm.load(trained[0])
    texts = [questions.class_question("object"), "Is this a small key?", "Who is this?"]
    said = train_vlm.answer(model, processor, images[:3], texts)
    assert said == train_vlm.answer(model, processor, images[:3], texts)
    assert said == [train_vlm.answer(model, processor, [i], [t])[0] for i, t in zip(images, texts, strict=False)]


def test_vision_tower_comes_out_as_it_went_in(trained):
    tower = train_vlm.load(trained[0])[0].model.vision_tower.state_dict()
    for name, value in train_vlm.vision_tower_of_mini_clip().state_dict().items():
        assert torch.equal(tower[name], value), name


def test_a_finished_run_started_again_trains_no_further(trained):
    again = load_file(trained[0] / "model.safetensors")
    assert again.keys() == trained[2].keys() and all(torch.equal(again[k], v) for k, v in trained[2].items())


def test_card_says_how_it_was_made_and_what_it_can(trained):
    card = trained[1]
    assert card["training"]["command"] == "python -m razor.minicanvas train vlm --steps 3 --batch 5 --seed 0"
    asked = [q.kind for known in (*FACTS, MANY) for q in all_questions(known)]
    assert {kind: entry["n"] for kind, entry in card["right_answers"].items()} == {k: asked.count(k) for k in asked}


def test_share_of_right_answers_is_what_generation_gives(processor, images):
    """On a model that has learned some answers by heart and gets others wrong."""
    torch.manual_seed(0)
    model, data = train_vlm.build_model(processor.tokenizer), pools(images)[0]
    data, rows = Pictures(data.pixels[1:3], data.labels[1:3]), range(2)
    talks = [all_questions(data.labels[row], row, held_out=True) for row in rows]
    pack = packed(processor.tokenizer, talks)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=2e-3)
    for _ in range(25):
        logits, truth = answers(model, data.tensor(rows), pack)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, truth).backward()
        optimizer.step()
    model.eval()
    flat = [(images[row + 1], question) for row in rows for question in talks[row]]
    said = train_vlm.answer(model, processor, [i for i, _ in flat], [q.text for _, q in flat])
    right = [text == question.answer for text, (_, question) in zip(said, flat, strict=True)]
    assert 0 < sum(right) < len(right)
    counted = train_vlm.right_answers(model, processor.tokenizer, data)
    assert round(sum(entry["value"] * entry["n"] for entry in counted.values())) == sum(right)


def test_random_talks_fit_the_model():
    rng = random.Random(0)
    tokenizer = train_vlm.build_tokenizer()
    talks = [[questions.random_question(f, rng) for _ in range(train_vlm.QUESTIONS)] for f in (*FACTS, MANY)] * 20
    assert packed(tokenizer, talks).positions.max() < train_vlm.LLAMA["max_position_embeddings"] - 16
