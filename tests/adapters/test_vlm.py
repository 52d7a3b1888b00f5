"""Each vision-language architecture as the library sees it: units, answers and their probabilities, one real edit."""

import math
import re
from dataclasses import replace
from functools import cache

import pytest
import tiny_vlms
import torch
from PIL import Image
from tiny_vlms import KINDS, OTHERS
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SiglipVisionConfig,
)

from razor.adapters import answering
from razor.adapters.answering import DENIED, LATER, LEAD, MARGIN, STRICTER, WIDER, _lead
from razor.adapters.interview import WRITTEN, beginnings
from razor.adapters.questions import Questions
from razor.adapters.vlm import VlmAdapter
from razor.config import FORGET_LOSSES, RazorConfig
from razor.errors import InputError, ModelError, Stopped
from razor.examples import Axis, Split, Task
from razor.gradients import collect, gradient_of
from razor.growth import Growth
from razor.membership import membership
from razor.patches import Patch
from razor.replay import earliest_blocks
from razor.step import evaluate
from razor.units import Slice, find_attention, parameters_of

pytestmark = pytest.mark.usefixtures("one_thread")

ASK = {"colour": "Which colour is the square?", "side": "Which side is it on?"}
QUESTIONS = Questions(
    ask=ASK.__getitem__,
    answer=lambda axis, name: name,
    neutral=lambda labels, axis: ["Is there a square?", *(ASK[name] for name in labels if name != axis)],
)
PICTURES = [Image.effect_noise((40, 50), 60).convert("RGB"), Image.effect_noise((90, 50), 90).convert("RGB")]
ASKED = ["What is this?", "Which colour is the square?"]
PLAIN = "USER: <image>\nWhich colour is the square?\nASSISTANT:"


def fresh(kind, seed=0, text=None, **options):
    """An adapter of its own."""
    return VlmAdapter(*tiny_vlms.tiny(kind, seed, **(text or {})), name=f"tiny {kind}", questions=QUESTIONS, **options)


@cache
def shared(kind):
    """One adapter of each kind for all tests: leave it as found."""
    adapter = fresh(kind)
    with torch.no_grad():  # no bias at a value that would hide a mistake
        for name, p in adapter.model.named_parameters():
            if name.endswith("bias"):
                p.add_(0.1 * torch.randn_like(p))
    return adapter


@pytest.fixture(params=KINDS)
def adapter(request):
    return shared(request.param)


@pytest.fixture(scope="module")
def knowing(make_task):
    """A LLaVA that tells six colours apart, and its task: forget red. Shared: leave it as found."""
    adapter = fresh("llava", 1, {"hidden_size": 48, "intermediate_size": 96})
    train = Split(*make_task(each=4).retain.__dict__.values()).test  # pictures of other seeds than any below
    forget = make_task(each=4).forget.test
    talks = [(e.image, ASK["colour"], e.labels["colour"]) for e in (*train, *forget)]
    tiny_vlms.learn(adapter, talks, 100)
    return adapter


@pytest.fixture(scope="module")
def task(make_task):
    """Forget red squares, keep the others, with colours alone asked for; pictures the model was not taught on."""
    made = make_task(each=3)
    parts = {s: Split(*(getattr(getattr(made, s), n) for n in ("gradient", "search", "search"))) for s in SIDES}
    return replace(made, axes=made.axes[:1], **parts)


SIDES = ("forget", "retain")


@cache
def prompt_of(adapter):
    """A question about a picture."""
    return adapter.prompts(PICTURES[1:], ASKED[1:])


def logits(adapter):
    """Scores of the next token after the question and after a token more, (1, 2, vocabulary)."""
    with torch.no_grad():
        return adapter.logits(prompt_of(adapter), adapter.features(prompt_of(adapter)), [torch.tensor([5])])


def with_zeros(adapter, slices):
    parameters = dict(adapter.model.named_parameters())
    with Patch({s: -s.view(parameters[s.parameter]).detach().clone() for s in slices}).applied(adapter.model):
        return logits(adapter)


def with_head_cut(adapter, unit):
    """`logits` with what the head adds taken out before the output projection reads it: a hook, no weight."""
    where = unit.slices[-1]

    def cut(_module, args):
        given = args[0].clone()
        given[..., where.start : where.stop] = 0
        return (given, *args[1:])

    module = adapter.model.get_submodule(where.parameter.removesuffix(".weight"))
    handle = module.register_forward_pre_hook(cut)
    try:
        return logits(adapter)
    finally:
        handle.remove()


def random_patch(adapter, units, scale=0.3):
    generator = torch.Generator().manual_seed(0)
    parameters = dict(adapter.model.named_parameters())
    slices = [s for unit in units for s in unit.slices]
    return Patch({s: scale * torch.randn(s.view(parameters[s.parameter]).shape, generator=generator) for s in slices})


# ---------------------------------------------------------------- units


def test_each_tower_has_the_rows_worked_out_by_hand(adapter):
    """Three vision blocks read, of 2 heads each; two decoder blocks, each of 4 query heads on 2 shared ones."""
    found = {t: [len(adapter.units((k,), (t,))) for k in ("head", "mlp", "layer")] for t in adapter.towers}
    assert found == {"image": [6, 3, 3], "projector": [0, 2, 0], "language": [12, 2, 2]}
    assert [u.name for u in adapter.units(("head",), ("language",))][:6] == [
        *(f"language.0.head.{h}" for h in range(4)),
        *(f"language.0.kv.{h}" for h in range(2)),
    ]
    assert [u.column for u in adapter.units(("head",), ("language",))] == [0, 1, 2, 3, 4, 5] * 2


def test_units_of_one_kind_share_no_number_and_a_layer_holds_the_others(adapter):
    parameters = dict(adapter.model.named_parameters())
    for kinds in (("head", "mlp"), ("layer",)):
        counts = {name: torch.zeros_like(parameters[name]) for name in parameters_of(adapter.units(kinds))}
        for unit in adapter.units(kinds):
            for view in unit.views(counts):
                view += 1
        assert max(count.max() for count in counts.values()) == 1
    layers = {(u.tower, u.layer): set(parameters_of([u])) for u in adapter.units(("layer",))}
    for unit in adapter.units(("head", "mlp"), ("image", "language")):
        assert {n for n in parameters_of([unit]) if not n.endswith("bias")} <= layers[unit.tower, unit.layer]
    assert all(adapter.tower_of(s.parameter) == u.tower for u in adapter.units() for s in u.slices)


def test_heads_cover_every_attention_weight_of_the_blocks_read(adapter):
    parameters = dict(adapter.model.named_parameters())
    heads = adapter.units(("head",))
    counts = {name: torch.zeros_like(parameters[name]) for name in parameters_of(heads)}
    for unit in heads:
        for view in unit.views(counts):
            view += 1
    assert all((count == 1).all() for count in counts.values())
    attention = re.compile(r"\.(attn|self_attn)\.(?!(out_proj|o_proj|proj)\.bias)")
    unread = "vision_tower.encoder.layers.3."
    assert {n for n in parameters if attention.search(n) and unread not in n} == set(counts)


def test_zeroing_a_heads_views_equals_removing_the_head(adapter):
    before = logits(adapter)
    for unit in adapter.units(("head",)):
        if ".head." in unit.name:
            removed = with_head_cut(adapter, unit)
            assert torch.equal(with_zeros(adapter, unit.slices), removed), unit.name
            assert torch.equal(with_zeros(adapter, unit.slices[-1:]), removed), unit.name
            assert not torch.equal(removed, before), unit.name


def test_columns_one_off_are_not_the_same_head(adapter):
    for unit in adapter.units(("head",)):
        if ".head." in unit.name:
            out = unit.slices[-1]
            step = 1 if unit.column == 0 else -1
            shifted = replace(out, start=out.start + step, stop=out.stop + step)
            assert not torch.equal(with_zeros(adapter, [shifted]), with_head_cut(adapter, unit)), unit.name


def test_zeroing_the_values_of_a_shared_head_equals_removing_both_heads_that_read_it(adapter):
    heads = {u.name: u for u in adapter.units(("head",), ("language",))}
    for layer in range(2):
        for g in range(2):
            values = [s for s in heads[f"language.{layer}.kv.{g}"].slices if ".v_proj." in s.parameter]
            readers = [heads[f"language.{layer}.head.{2 * g + i}"].slices[-1] for i in range(2)]
            assert torch.allclose(with_zeros(adapter, values), with_zeros(adapter, readers), atol=1e-6)


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
def test_shared_rows_are_in_no_query_head_and_a_head_of_its_own_keeps_them(kind):
    rows = lambda adapter, mark: {  # noqa: E731
        s.parameter.split(".")[-2] for u in adapter.units(("head",), ("language",)) if mark in u.name for s in u.slices
    }
    assert rows(shared(kind), ".kv.") == {"k_proj", "v_proj"}
    assert rows(shared(kind), ".head.") == {"q_proj", "o_proj"}
    alone = fresh(kind, text={"num_key_value_heads": 4})
    assert rows(alone, ".head.") == {"q_proj", "k_proj", "v_proj", "o_proj"} and not rows(alone, ".kv.")


@pytest.mark.parametrize("kind", ["llava", "llava_next"])
def test_the_block_behind_the_layer_that_is_read_has_no_units(kind):
    adapter = shared(kind)
    parameters = dict(adapter.model.named_parameters())
    unread = [n for n in parameters if ".encoder.layers.3." in n]
    assert unread and not set(unread) & set(parameters_of(adapter.units(("head", "mlp", "layer"))))
    assert torch.equal(with_zeros(adapter, [Slice(n) for n in unread]), logits(adapter))


def test_a_llava_that_reads_the_last_block_has_units_there():
    model, processor = tiny_vlms.tiny("llava")
    model.config.vision_feature_layer = -1
    layers = {u.layer for u in VlmAdapter(model, processor, name="last").units(("head",), ("image",))}
    assert layers == {0, 1, 2, 3}


def test_a_pooling_head_that_is_not_read_has_no_units():
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    siglip = SiglipVisionConfig(**sizes, image_size=32, patch_size=8)
    _, processor = tiny_vlms.tiny("llava")
    processor.num_additional_image_tokens, processor.vision_feature_select_strategy = 0, "full"
    text = tiny_vlms.tiny("llava")[0].config.text_config
    reads = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full", "image_token_id": 3}
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=siglip, text_config=text, **reads))
    assert any(".head." in a.path for a in find_attention(model))
    units = VlmAdapter(model, processor, name="pooled").units(("head", "mlp", "layer"), ("image", "projector"))
    assert not any(".vision_tower.head." in name for name in parameters_of(units))
    assert [u.name for u in units if u.kind == "layer"] == ["image.0.layer", "image.1.layer"]
    assert [u.slices[0].parameter.split(".")[-2] for u in units if u.tower == "projector"] == ["linear_1", "linear_2"]


def test_a_model_that_reads_more_of_a_picture_than_its_tokens_is_refused():
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    shared_sizes = {"hidden_size": 32, "intermediate_size": 48}
    vision = {"depth": 2, "num_heads": 2, "patch_size": 4, "out_hidden_size": 32, "deepstack_visual_indexes": [0]}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    _, processor = tiny_vlms.tiny("qwen2_vl")
    text = {"vocab_size": len(processor.tokenizer), "rope_parameters": rope, **heads, **shared_sizes}
    tokens = {"image_token_id": 6, "video_token_id": 7, "vision_start_token_id": 4, "vision_end_token_id": 5}
    config = Qwen3VLConfig(vision_config=vision | shared_sizes, text_config=text, **tokens)
    with pytest.raises(ModelError) as caught:
        VlmAdapter(Qwen3VLForConditionalGeneration(config), processor, name="deep")
    assert str(caught.value).startswith(
        "deep (Qwen3VLForConditionalGeneration) cannot be edited here: it reads more of a picture than its tokens; "
    )


def test_a_model_that_reads_an_answer_with_an_eye_on_what_follows_is_refused():
    with pytest.raises(ModelError) as caught:
        fresh("paligemma")
    assert "it reads an answer that is given whole otherwise than one it writes token by token; " in str(caught.value)


def test_every_unit_makes_a_difference(adapter):
    before = logits(adapter)
    for unit in adapter.units(("head", "mlp")):
        assert not torch.equal(with_zeros(adapter, unit.slices), before), unit.name


def test_the_first_edited_block_is_found_in_every_tower(adapter):
    for unit in adapter.units(("head", "mlp"), ("image", "language")):
        assert earliest_blocks(adapter, random_patch(adapter, [unit])) == {unit.tower: unit.layer}


def in_codes(layers):
    """These as they are stored in few bits: whole numbers, read by a forward of their own."""
    for layer in layers:
        layer.weight = torch.nn.Parameter(layer.weight.detach().mul(1000).to(torch.int16), requires_grad=False)
        layer.forward = lambda given, layer=layer: torch.nn.functional.linear(
            given, layer.weight.to(given.dtype) / 1000
        )


def test_codes_of_a_quantised_part_are_no_units():
    model, processor = tiny_vlms.tiny("llava")
    in_codes([model.model.language_model.layers[0].mlp.up_proj])
    adapter = VlmAdapter(model, processor, name="codes")
    names = {u.name for u in adapter.units(("head", "mlp", "layer"))}
    assert not names & {"language.0.mlp", "language.0.layer"} and {"language.0.head.0", "language.1.mlp"} <= names
    assert adapter.growing == ("language",)


def test_where_the_language_model_is_in_codes_growth_edits_what_sees(make_task, weights_of, same_weights):
    model, processor = tiny_vlms.tiny("llava")
    in_codes(m for m in model.model.language_model.modules() if isinstance(m, torch.nn.Linear))
    adapter = VlmAdapter(model, processor, name="codes", questions=QUESTIONS)
    before = weights_of(model)
    settings = {"inner_steps": 2, "start_units": 2, "tau": 0.0, "batch": 4, "retain_budget": 1.0, "rounds": 1}
    growth = Growth(adapter, make_task(), RazorConfig(**settings))
    (done,) = growth.run()
    assert done.members and all(name.startswith("image.") for name in done.members) and same_weights(model, before)


# ---------------------------------------------------------------- weights as found


def test_an_empty_edit_gives_the_same_bits_and_a_real_one_is_undone_also_when_the_body_raises(
    adapter, weights_of, same_weights
):
    before, weights = logits(adapter), weights_of(adapter.model)
    with Patch().applied(adapter.model):
        assert torch.equal(logits(adapter), before)
    with pytest.raises(KeyError), random_patch(adapter, adapter.units(("head", "mlp"))).applied(adapter.model):
        assert not torch.equal(logits(adapter), before)
        raise KeyError
    assert same_weights(adapter.model, weights) and torch.equal(logits(adapter), before)


def test_the_fingerprint_is_taken_once():
    adapter = fresh("llava")
    first = adapter.fingerprint()
    with random_patch(adapter, adapter.units(("mlp",), ("projector",))).applied(adapter.model):
        assert adapter.fingerprint() == first


def test_equal_weights_have_equal_fingerprints():
    assert fresh("llava").fingerprint() == fresh("llava").fingerprint() != fresh("llava", 1).fingerprint()


def test_gradients_stay_off(adapter):
    assert not any(p.requires_grad or p.grad is not None for p in adapter.model.parameters())
    assert not any(m.training for m in adapter.model.modules())


def test_a_text_asked_again_about_a_picture_of_the_same_size_reads_as_it_did_in_full(adapter, monkeypatch):
    others = [Image.effect_noise(p.size, 120).convert("RGB") for p in PICTURES]
    monkeypatch.setattr(adapter, "_forms", {})
    first = adapter.prompts(PICTURES, ASKED)
    assert len(adapter._forms) == len(PICTURES)
    monkeypatch.setattr(adapter, "processor", Mute(adapter.processor))
    again = adapter.prompts(others, ASKED)
    monkeypatch.undo()
    monkeypatch.setattr(adapter, "_forms", {})
    for quick, full in zip([*first, *again], adapter.prompts([*PICTURES, *others], [*ASKED, *ASKED]), strict=True):
        assert torch.equal(quick.ids, full.ids) and quick.places == full.places
        for mine, theirs in ((quick.picture, full.picture), (quick.beside, full.beside)):
            assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


class Mute:
    """A processor that reads pictures but no texts."""

    def __init__(self, whole):
        self.image_processor, self.apply_chat_template = whole.image_processor, whole.apply_chat_template
        self.chat_template = whole.chat_template


# ---------------------------------------------------------------- answers


def test_answers_are_those_of_the_models_own_call_whatever_the_batch(adapter):
    together = adapter.answer(PICTURES, ASKED, max_new_tokens=6)
    prompts = adapter.prompts(PICTURES, ASKED)
    assert adapter.write(prompts, adapter.features(prompts), max_new_tokens=6) == together
    pictures = [p.resize((60, 50)) for p in PICTURES]  # in one batch
    prompts = adapter.prompts(pictures, ASKED[:1] * 2)
    assert len(adapter.batches(prompts)) == 1
    assert adapter.write(prompts, adapter.features(prompts), max_new_tokens=6) == adapter.answer(
        pictures, ASKED[:1] * 2, max_new_tokens=6
    )
    assert together == [adapter.answer([p], [q], max_new_tokens=6)[0] for p, q in zip(PICTURES, ASKED, strict=True)]
    inputs = adapter.processor(images=[PICTURES[1]], text=[adapter._text(ASKED[1])], return_tensors="pt")
    said = adapter.model.generate(**inputs, do_sample=False, max_new_tokens=6, pad_token_id=0)
    text = adapter.tokenizer.decode(said[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert together[1] == text.strip()


def test_probabilities_of_an_answer_are_those_of_one_plain_forward(adapter):
    (prompt,), ids = adapter.prompts(PICTURES[1:], ASKED[1:]), adapter.answer_ids("red green")
    inputs = adapter.processor(images=[PICTURES[1]], text=[adapter._text(ASKED[1])], return_tensors="pt")
    start = inputs["input_ids"].shape[1]
    for key in ("input_ids", "attention_mask", "mm_token_type_ids"):
        if key in inputs:
            more = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}.get(key, torch.zeros_like(ids))
            inputs[key] = torch.cat([inputs[key], more[None]], 1)
    with torch.no_grad():
        scores = adapter.model(**inputs).logits[0].log_softmax(-1)
        found = adapter.token_logprobs([prompt], adapter.features([prompt]), [ids])[0]
    assert found.tolist() == pytest.approx([scores[start - 1 + i, t].item() for i, t in enumerate(ids)], abs=1e-5)


def test_choices_score_as_answers_given_one_by_one(adapter):
    prompts, answers = adapter.prompts(PICTURES, ASKED), [adapter.answer_ids(a) for a in ("red", "Mara Voss", "yes")]
    for prompt in prompts:
        given = adapter.features([prompt])
        with torch.no_grad():
            lone = [adapter.token_logprobs([prompt], given, [a])[0].sum().item() for a in answers]
        assert adapter.choice_scores([prompt], given, answers)[0].tolist() == pytest.approx(lone, abs=1e-5)


def test_beside_its_choices_a_prompt_scores_what_is_likeliest_instead_of_the_right_one(adapter):
    prompts, answers = adapter.prompts(PICTURES, ASKED), [adapter.answer_ids(a) for a in ("red", "Mara Voss", "yes")]
    right = [answers[i % 3] for i in range(len(prompts))]
    scores = adapter.choice_scores(prompts, adapter.features(prompts), answers, right)
    assert scores[:, :3].equal(adapter.choice_scores(prompts, adapter.features(prompts), answers))
    assert scores[:, 3].tolist() == pytest.approx([scores[i, i % 3].item() for i in range(len(prompts))], abs=1e-5)
    for prompt, ids, found in zip(prompts, right, scores[:, 4].tolist(), strict=True):
        openings = []
        with torch.no_grad():
            likely = adapter.logits([prompt], adapter.features([prompt]), [ids])[0].log_softmax(-1)
        for place, said in enumerate(ids.tolist()):
            before = sum(likely[i, token].item() for i, token in enumerate(ids[:place].tolist()))
            openings += [before + value for token, value in enumerate(likely[place].tolist()) if token != said]
        assert found == pytest.approx(max(openings), abs=1e-4)


@pytest.mark.parametrize(
    ("answers", "lengths"),
    [
        ([[1, 2], [1, 3], [4, 3]], [2, 2, 1]),  # a cat, a dog, an owl
        ([[1, 2], [3, 4]], [1, 1]),  # first names differ
        ([[1, 2, 3, 4], [1, 2, 5]], [3, 3]),
        ([[1], [1, 2]], [1, 2]),  # one is how the other begins
        ([[1, 2]], [1]),
    ],
)
def test_an_answer_begins_with_what_no_other_begins_with(answers, lengths):
    assert [len(start) for start in beginnings(list(map(torch.tensor, answers)))] == lengths


def test_a_name_is_scored_token_by_token_however_it_is_split(adapter):
    for name in ("red", "Mara Voss", "Zoë Ŵynn-O'Hara", "李小龙", "x"):
        rows = adapter.name_logprobs(PICTURES, ASKED, name)
        assert all([token for token, _ in row] == [token for token, _ in rows[0]] for row in rows)
        said = adapter.tokenizer.decode(adapter.answer_ids(name))
        assert said.strip() == name and len(rows[0]) == len(adapter.answer_ids(name))
        assert all(value < 0 and math.isfinite(value) for row in rows for _, value in row)


def test_a_letter_written_in_several_tokens_is_shown_whole_at_its_end(adapter):
    (row,) = adapter.name_logprobs(PICTURES[:1], ASKED[:1], "李小龙 red")
    pieces = [token for token, _ in row]
    assert "\ufffd" not in "".join(pieces) and len(pieces) == len(adapter.answer_ids("李小龙 red"))
    assert "".join(piece for piece in pieces if piece != "…").strip() == "李小龙 red"


def test_a_name_longer_than_what_is_written_has_room(knowing, task):
    name = "red " * 40
    axis = Axis("colour", {name: (name,), **{n: p for n, p in task.axes[0].prompts.items() if n != "red"}})
    told = lambda e: replace(e, labels={"colour": name}) if e.labels["colour"] == "red" else e  # noqa: E731
    sides = {s: Split(*(tuple(map(told, split)) for split in vars(getattr(task, s)).values())) for s in SIDES}
    bench = knowing.bench(replace(task, concept=name, axes=(axis,), **sides))
    assert bench.length >= len(knowing.answer_ids(name)) + 8 > WRITTEN
    assert knowing.bench(task).length == WRITTEN


def test_without_a_chat_template_the_prompt_is_the_plain_one():
    adapter = shared("llava")
    assert adapter._text(ASKED[1]) == PLAIN
    (prompt,) = adapter.prompts(PICTURES[:1], ASKED[1:])
    assert prompt.places == 16 and (prompt.ids == 3).sum() == 16


def test_a_chat_template_is_used_where_there_is_one():
    adapter = shared("qwen2_vl")
    text = adapter.tokenizer.decode(adapter.prompts(PICTURES[:1], ASKED[1:])[0].ids)
    assert text.startswith("user: <|vision_start|><|image_pad|>") and text.endswith("square?\nassistant: ")


def test_an_answer_follows_a_space_unless_the_prompt_ends_in_one():
    first = {kind: shared(kind).tokenizer.decode(shared(kind).answer_ids("red")) for kind in ("llava", "qwen2_vl")}
    assert first == {"llava": " red", "qwen2_vl": "red"}


def test_a_round_that_is_stopped_while_it_confirms_says_so(knowing, task):
    with pytest.raises(Stopped):
        knowing.bench(task).confirm(lambda: True)


def test_stopping_in_the_middle_gives_no_answers():
    adapter, asked = shared("llava"), []
    assert adapter.answer(PICTURES, ASKED, stop=lambda: asked.append(0) or len(asked) == 3) == []
    assert len(asked) < 6
    assert len(adapter.answer(PICTURES, ASKED, max_new_tokens=2)) == 2


@pytest.mark.parametrize("kind", ["llava", "llava_next"])
def test_pixels_are_the_whole_picture_normalised(kind):
    adapter = shared(kind)
    grey = Image.new("RGB", (32, 32), tuple(round(255 * m) for m in adapter.processor.image_processor.image_mean))
    found = adapter.pixels([grey, grey])
    assert found.shape == (2, 3, 32, 32) and found.abs().max() < 0.01


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "pictures, questions, sentence",
    [
        (PICTURES, ["a"], "1 questions came with 2 pictures; give one picture for each question."),
        (
            [PICTURES],
            ["Who is this?"],
            "The question 'Who is this?' came with 2 pictures; a question is about one picture.",
        ),
        ([None], ["Who?"], "The question 'Who?' came with no picture; a question is about one picture."),
        (
            PICTURES[:1],
            [" \n"],
            "A question is empty; ask something about the picture, such as 'Who is this?'.",
        ),
        (
            PICTURES[:1],
            ["<image> Who?"],
            "A question holds '<image>', which stands for the picture itself; leave it out.",
        ),
        (
            PICTURES[:1],
            ["Who?</s>"],
            "A question holds '</s>', which the tokenizer of tiny llava reads as a mark of its own; leave it out.",
        ),
    ],
)
def test_what_no_prompt_can_be_made_of_is_refused_in_one_sentence(pictures, questions, sentence):
    with pytest.raises(InputError) as caught:
        shared("llava").answer(pictures, questions)
    assert str(caught.value) == sentence


def test_a_question_beyond_the_context_says_how_much_is_too_much():
    adapter = shared("llava")
    fits = "a" * (512 - len(adapter.prompts(PICTURES[:1], ["a"])[0].ids) - 4 + 1)
    assert len(adapter.prompts(PICTURES[:1], [fits], room=4)[0].ids) == 508
    with pytest.raises(InputError) as caught:
        adapter.prompts(PICTURES[:1], [fits + "aaa"], room=4)
    assert str(caught.value) == (
        f"The question {'a' * 40!r} takes 511 tokens with its picture, and tiny llava reads 512, 4 of them kept for "
        "the answer; shorten it by 3 tokens (a token is part of a word)."
    )


def test_a_name_that_is_nothing_is_refused():
    with pytest.raises(InputError, match=r"^The tokenizer of tiny llava makes nothing of the answer ' '; "):
        shared("llava").answer_ids(" ")


@pytest.mark.parametrize("mark", ["<image>", "</s>"])
def test_a_name_with_a_special_token_in_it_is_refused(mark):
    with pytest.raises(InputError, match=f"^The name 'Ma{mark}ra' holds '{mark}', which .*; leave it out\\.$"):
        shared("llava").answer_ids(f"Ma{mark}ra")


def test_memory_that_runs_out_says_what_to_lower(monkeypatch):
    adapter = shared("llava")

    def full(**_):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(adapter.model, "generate", full)
    with pytest.raises(ModelError) as caught:
        adapter.answer(PICTURES, ASKED)
    assert str(caught.value) == (
        "Memory ran out while answering 2 questions. Load the model in half precision, or use smaller pictures. Your "
        "session is as it was."
    )


def test_a_processor_that_leaves_another_number_of_places_is_refused():
    model, processor = tiny_vlms.tiny("llava")
    processor.num_additional_image_tokens = 0
    with pytest.raises(ModelError) as caught:
        VlmAdapter(model, processor, name="wrong")
    assert str(caught.value) == (
        "The processor of wrong does not fit it: it leaves 15 places for a picture of which the model makes 16 tokens; "
        "use the processor the model was saved with."
    )


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{% for m in messages %}{{ m['content'] + 1 }}{% endfor %}", "does not fit it (can only concatenate"),
        ("{{ nothing.at.all }}", "does not fit it ('nothing' is undefined)"),
        ("{% if %}", "does not fit it ("),
        ("{{ messages[0]['content'][1]['text'] }}", "Found total 0 <image> tokens and 1 images"),
        ("<image> Say something.", "The chat template of wrong leaves out the question"),
    ],
)
def test_a_chat_template_that_does_not_fit_is_refused_in_one_sentence(template, sentence):
    model, processor = tiny_vlms.tiny("llava")
    processor.chat_template = template
    with pytest.raises(ModelError) as caught:
        VlmAdapter(model, processor, name="wrong")
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).endswith("use the processor the model was saved with.")


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused():
    model, processor = tiny_vlms.tiny("llava")
    rows = len(processor.tokenizer)
    processor.tokenizer.add_tokens(["zzz"])
    with pytest.raises(ModelError) as caught:
        VlmAdapter(model, processor, name="wrong")
    assert str(caught.value) == (
        f"The tokenizer of wrong has {rows + 1} tokens and the model knows {rows}; use the processor the model was "
        "saved with."
    )


def test_a_picture_reader_that_does_not_fit_is_refused_in_one_sentence():
    model, processor = tiny_vlms.tiny("llava")
    processor.image_processor.do_center_crop = processor.image_processor.do_resize = False
    with pytest.raises(ModelError, match=r"^The processor of wrong does not fit it \(.*\); use the processor "):
        VlmAdapter(model, processor, name="wrong")


def test_a_picture_the_processor_cannot_take_is_one_sentence():
    with pytest.raises(InputError) as caught:
        shared("qwen2_vl").answer([Image.new("RGB", (2000, 4))], ["What is this?"])
    said = str(caught.value)
    assert said.startswith("tiny qwen2_vl cannot take a picture of 2000 x 4 pixels (absolute aspect ratio must be ")
    assert said.endswith("; give one of another size or shape.")


# ---------------------------------------------------------------- losses and metrics


def test_the_trained_model_knows_what_is_to_be_forgotten(knowing, task):
    bench = knowing.bench(task)
    base = bench.evaluate("search", ())
    assert bench.knows(base) and base.forget_accuracy.value == 1 and base.retain_accuracy.value > 0.9
    red = task.forget.search[0].image
    assert knowing.answer([red], [ASK["colour"]]) == ["red"]


def test_every_other_picture_is_asked_about_in_other_words_but_for_the_reported_ones(knowing, task, monkeypatch):
    other, asked = ("Name the colour.", "Tell me the colour."), []
    wordings = lambda axis: other if axis == "colour" else ()  # noqa: E731
    monkeypatch.setattr(knowing, "questions", replace(QUESTIONS, wordings=wordings))
    prompts = knowing.prompts
    monkeypatch.setattr(knowing, "prompts", lambda images, texts, **room: asked.append(texts) or prompts(images, texts))
    bench, count = knowing.bench(task), len(task.forget.search)
    for split in ("search", "test"):
        bench.questions("forget", split)
        about = [text for text in asked[-1] if text != ASK["side"]]
        turns = [other[i // 2 % 2] if i % 2 and split == "search" else ASK["colour"] for i in range(count)]
        assert about == turns and count > 3


@pytest.fixture(scope="module")
def affirming(make_task):
    """A LLaVA that tells colours apart and says yes or no to them, told that yes to one is to go. Leave it as found."""
    adapter = fresh("llava", 1, {"hidden_size": 48, "intermediate_size": 96})
    adapter.questions = replace(QUESTIONS, denied=("colour",))
    made = make_task(each=4)
    shown = [e for e in (*made.retain.gradient, *made.retain.search, *made.forget.gradient, *made.forget.test)]
    names = made.axes[0].classes
    talks = [(e.image, ASK["colour"], e.labels["colour"]) for e in shown]
    for number, e in enumerate(shown):
        own, other = e.labels["colour"], names[(number + 1) % len(names)]
        talks.append((e.image, f"Is this {own}?", "yes"))
        talks += [] if other == own else [(e.image, f"Is this {other}?", "no")]
    tiny_vlms.learn(adapter, talks, 200, 32)
    return adapter


def test_a_model_that_says_yes_to_the_name_is_to_say_no(affirming, knowing, task, monkeypatch):
    monkeypatch.setattr(knowing, "questions", affirming.questions)
    assert not knowing.bench(task).affirms  # it was never taught to say yes
    alone = replace(task.axes[0], prompts={"red": task.axes[0].prompts["red"], "none": ("nothing",)})
    assert not affirming.bench(replace(task, axes=(alone,), neighbours=())).affirms  # it might deny every name unseen
    bench = affirming.bench(task)
    assert bench.affirms
    base, names = bench.evaluate("search", ()), len(task.forget.search)
    assert base.forget_accuracy.n == 2 * names and base.affirmed is None  # named, and yes said to the name
    reported = bench.evaluate("test", ())
    assert reported.forget_accuracy.n == reported.affirmed.n == names and reported.affirmed.value > 0.5
    assert reported.granted.n == len(task.retain.test) and reported.granted.value > 0.5


@pytest.mark.parametrize("margin", [MARGIN, -9.0])
def test_steps_push_yes_to_the_name_up_to_a_bound_once_a_picture_is_no_longer_named(
    affirming, task, margin, monkeypatch
):
    monkeypatch.setattr(answering, "MARGIN", margin)  # below any name's surprise: none counts as named
    bench = affirming.bench(task)
    pictures = [e.image for e in task.forget.gradient]

    def surprise(question, answer):
        rows = affirming.name_logprobs(pictures, [question] * len(pictures), answer)
        return torch.tensor([-sum(p for _, p in row) for row in rows])

    with torch.no_grad():
        pushed = bench._alignment(torch.arange(len(pictures)), sated=True).item()
    most, beyond = math.log(6) + margin, math.log(2) + DENIED
    named, yes = surprise(ASK["colour"], "red"), surprise("Is this red?", "yes").clamp(max=beyond)
    assert (named < most).all() == (margin == MARGIN)
    expected = named.clamp(max=most) + torch.where(named < most, beyond, yes)
    assert pushed == pytest.approx(expected.mean().item(), rel=1e-4)


def test_what_is_kept_is_that_others_are_still_said_yes_to(affirming, task):
    bench = affirming.bench(task)
    texts = [affirming.tokenizer.decode(p.ids) for p in bench.pictures("retain", "gradient")]
    own = [e.labels["colour"] for e in task.retain.gradient]
    asked = [f"Is this {name}?" in text for name, text in zip(own, texts, strict=True)]
    assert asked == [number % 2 == 1 for number in range(len(own))]
    assert not any("Is this" in affirming.tokenizer.decode(p.ids) for p in bench.pictures("retain", "test"))


def test_the_unedited_model_has_no_drift_and_an_edited_one_has(knowing, task):
    bench = knowing.bench(task)
    assert bench.evaluate("search", ()).neutral_kl.value == 0
    towers = tuple(knowing.towers)
    with random_patch(knowing, knowing.units(("head",), ("image",)), 0.05).applied(knowing.model):
        assert bench.evaluate("search", towers).neutral_kl.value > 1e-4
    assert bench.evaluate("search", towers).neutral_kl.value == pytest.approx(0, abs=1e-6)


def test_drift_has_no_gradient_at_the_frozen_model_and_one_away_from_it(knowing, task):
    units = knowing.units(("head",))
    heavy, none = (knowing.bench(task, mismatch_weight=w).step_terms(1)["keep"] for w in (1.0, 0.0))
    size = lambda: sum(  # noqa: E731
        g.square().sum() for gs in gradient_of(knowing.model, units, lambda: heavy() - none(), "r")[1] for g in gs
    )
    frozen = size()
    with random_patch(knowing, units, 0.05).applied(knowing.model):
        assert frozen < 1e-6 * size()


@pytest.mark.parametrize("forget_loss", FORGET_LOSSES)
def test_a_step_up_the_forget_gradient_makes_the_name_less_likely(knowing, task, forget_loss):
    adapter, bench = knowing, knowing.bench(task)
    bench.forget_loss = forget_loss
    units = adapter.units(("head", "mlp"), ("image", "projector"))
    _, grads = gradient_of(adapter.model, units, bench.scoring_terms()["forget"], "forget")
    length = sum(g.square().sum() for gs in grads for g in gs).sqrt()
    # So short that the slope decides: a model that is sure of the name is next to the top of its probability.
    up = {s: 0.001 * g / length for u, gs in zip(units, grads, strict=True) for s, g in zip(u.slices, gs, strict=True)}
    pictures = [e.image for e in task.forget.gradient]
    said = lambda: [  # noqa: E731
        sum(v for _, v in row) for row in adapter.name_logprobs(pictures, [ASK["colour"]] * len(pictures), "red")
    ]
    before = said()
    with Patch(up).applied(adapter.model):
        after = said()
    with Patch(up).scaled(-1).applied(adapter.model):
        other = said()
    assert sum(after) < sum(before) < sum(other)


def test_the_answer_loss_is_worked_out_by_hand_and_ends_beyond_chance(knowing, task):
    bench = knowing.bench(task)
    with torch.no_grad():
        found = bench.scoring_terms()["forget"]().item()
    pictures = [e.image for e in task.forget.gradient]
    rows = knowing.name_logprobs(pictures, [ASK["colour"]] * len(pictures), "red")
    assert found == pytest.approx(sum(-sum(v for _, v in row) for row in rows) / len(rows), rel=1e-4)
    strong = random_patch(knowing, knowing.units(("layer",), ("image",)), 3.0)
    with strong.applied(knowing.model), torch.no_grad():
        assert bench.scoring_terms()["forget"]().item() <= math.log(6) + 4 + 1e-6


def test_steps_push_the_rest_of_a_name_said_after_another_one_too_and_neither_without_end(knowing, task):
    whole = replace(QUESTIONS, answer=lambda axis, name: f"{name} square")
    adapter = VlmAdapter(knowing.model, knowing.processor, name="x", questions=whole)
    bench = adapter.bench(task)
    pictures = [e.image for e in task.forget.gradient]
    others = [name for name in task.axes[0].classes if name != "red"]

    def surprise(image, name, part):
        return -sum(v for _, v in adapter.name_logprobs([image], [ASK["colour"]], name)[0][part])

    first = [surprise(image, "red square", slice(0, 1)) for image in pictures]
    later = [surprise(p, f"{others[i % len(others)]} square", slice(1, None)) for i, p in enumerate(pictures)]
    every = torch.arange(len(pictures))
    with torch.no_grad():
        scored, pushed = (bench._alignment(every, sated=sated).item() for sated in (False, True))
    assert scored == pytest.approx(sum(first) / len(first), rel=1e-4)
    bounded = [min(f, math.log(6) + MARGIN) + min(r, math.log(6) + LATER) for f, r in zip(first, later, strict=True)]
    assert pushed == pytest.approx(sum(bounded) / len(bounded), rel=1e-4)


def with_full_names(task):
    """The task with a person's name for each colour: "Red Squarer"."""
    call = lambda name: f"{name.title()} {name.title()}er"  # noqa: E731
    told = lambda e: replace(e, labels=e.labels | {"colour": call(e.labels["colour"])})  # noqa: E731
    sides = {
        side: Split(*(tuple(map(told, getattr(getattr(task, side), s))) for s in ("gradient", "search", "test")))
        for side in SIDES
    }
    colours, *others = task.axes
    people = Axis("colour", {call(name): prompts for name, prompts in colours.prompts.items()})
    return replace(task, concept=call("red"), axes=(people, *others), neighbours=(), **sides)


def test_a_last_name_by_itself_counts_as_the_name_and_steps_push_it_too(knowing, task):
    bench = knowing.bench(with_full_names(task))
    pictures = [e.image for e in task.forget.gradient]
    alone = [
        -sum(v for _, v in row) for row in knowing.name_logprobs(pictures, [ASK["colour"]] * len(pictures), "Reder")
    ]
    every = torch.arange(len(pictures))
    with torch.no_grad():
        assert bench._last_name(every.tolist(), bench.tokens("forget", "gradient", ())).tolist() == pytest.approx(
            alone, rel=1e-4
        )
        words = bench._first_words, bench._later_words, bench._last_name
        parts = torch.stack([word(every.tolist(), bench.tokens("forget", "gradient", ())) for word in words])
        bounds = math.log(6) + torch.tensor([[MARGIN], [LATER], [MARGIN]])
        pushed = bench._alignment(every, (), sated=True)
        assert pushed.item() == pytest.approx(parts.minimum(bounds).sum(0).mean().item(), rel=1e-4)
        scored = bench._choices("forget", "search", bench.tokens("forget", "search", ()))
        bench.lasts = {}
        first = bench._choices("forget", "search", bench.tokens("forget", "search", ()))
    images = [e.image for e in task.forget.search]
    for number, name in enumerate(bench.task.axes[0].classes):
        rows = knowing.name_logprobs(images, [ASK["colour"]] * len(images), name.split()[1])
        last = torch.tensor([sum(v for _, v in row) for row in rows])
        expected = torch.stack(first)[:, number].logaddexp(last)
        assert torch.allclose(torch.stack(scored)[:, number], expected, atol=1e-4)
    assert torch.stack(scored)[:, -1].equal(torch.stack(first)[:, -1])


def test_a_step_is_made_on_the_pictures_that_are_named_most_surely(knowing, task):
    bench = knowing.bench(task, batch=4)
    pictures = [e.image for e in task.forget.gradient]
    rows = bench._draw("forget", WIDER * 2, "forget/1").tolist()
    assert len(rows) > 2
    sure = [sum(v for _, v in row) for row in knowing.name_logprobs(pictures, [ASK["colour"]] * len(pictures), "red")]
    best = sorted(sorted(rows, key=lambda row: -sure[row])[:2], key=rows.index)
    chosen = bench._best_known(torch.tensor(rows), 2, ())
    assert chosen.tolist() == best
    with torch.no_grad():
        stepped = bench.step_terms(1, ("language",))["forget"]().item()
        assert stepped == pytest.approx(bench._alignment(chosen, (), sated=True).item(), rel=1e-5)


def test_what_is_kept_is_kept_where_the_right_answer_is_least_likely(knowing, task):
    bench = knowing.bench(task, batch=2)
    rows = bench._draw("retain", WIDER * 2, "retain/1")
    assert len(rows) > 2
    asked = [next(a for a in bench.asked("retain", "gradient") if a.picture == row) for row in rows.tolist()]
    told = [
        sum(v for _, v in knowing.name_logprobs([a.example.image], [ASK["colour"]], a.example.labels["colour"])[0])
        for a in asked
    ]
    unsure = sorted(range(len(rows)), key=lambda i: told[i])[:2]
    assert bench._least_sure(rows, 1, ()).tolist() == [rows[i].item() for i in sorted(unsure)]
    assert bench._least_sure(rows[:2], 1, ()).tolist() == rows[:2].tolist()


@pytest.mark.parametrize(
    ("said", "lead"),
    [
        (True, -1.0),  # the name was written, and now something that is no class is likelier
        (False, 1.5),  # it never was: classes are compared
    ],
)
def test_the_right_answer_leads_over_what_would_be_said_instead(said, lead):
    assert _lead(torch.tensor([0.5, 2.0, -4.0, 3.0]), 1, said) == lead


def test_alignment_is_worked_out_by_hand_and_reads_no_language_model(knowing, task):
    adapter, bench = knowing, knowing.bench(task)
    bench.forget_loss = "alignment"
    mean = lambda examples: torch.stack(  # noqa: E731
        [adapter.features(adapter.prompts([e.image], ["?"]))[0].mean(0) for e in examples]
    )
    with torch.no_grad():
        middle, forget = mean(task.retain.gradient).mean(0), mean(task.forget.gradient)
        found = bench.scoring_terms()["forget"]().item()
    cosines = torch.nn.functional.cosine_similarity(forget - middle, forget.mean(0) - middle, dim=1)
    assert found == pytest.approx((1 - cosines).mean().item(), abs=1e-5)
    stats = collect(adapter.model, adapter.units(("head",)), bench.scoring_terms())
    assert {s.unit.tower for s in stats if s.forget_norm > 0} == {"image"}


def test_both_gradients_reach_every_unit(knowing, task):
    stats = collect(knowing.model, knowing.units(("head", "mlp")), knowing.bench(task).scoring_terms())
    assert [s.unit.name for s in stats if not (s.forget_norm > 0 and s.retain_norm > 0)] == []


def test_rows_run_in_parts_give_the_same_gradient(knowing, task):
    small = VlmAdapter(knowing.model, knowing.processor, name="x", questions=QUESTIONS, at_once=80)
    units = knowing.units(("head",), ("image", "language"))
    for side in ("forget", "keep"):
        (loss, grads), (other, again) = (
            gradient_of(a.model, units, a.bench(task).step_terms(1)[side], side) for a in (knowing, small)
        )
        assert loss == pytest.approx(other, rel=1e-5)
        for g, h in zip((g for gs in grads for g in gs), (h for hs in again for h in hs), strict=True):
            assert torch.allclose(g, h, atol=1e-5)


def test_metrics_by_the_first_edited_block_are_those_of_a_full_run(knowing, task):
    unit = knowing.units(("head",), ("image",))[-1]
    patch = random_patch(knowing, [unit])
    bench = knowing.bench(task)
    bench.evaluate("search", ())
    found = evaluate(knowing, bench, patch, "search")
    with patch.applied(knowing.model):
        assert bench.evaluate("search", ("image",)) == found
    assert bench._prefixes.bytes > 0


def test_an_edit_of_the_language_model_reads_the_frozen_pictures(knowing, task):
    bench = knowing.bench(task)
    bench.evaluate("search", ())
    patch = random_patch(knowing, knowing.units(("head",), ("language",)), 0.1)
    found = evaluate(knowing, bench, patch, "search")
    with patch.applied(knowing.model):
        assert bench.evaluate("search") == found


def test_test_numbers_are_counted_on_written_answers(knowing, task):
    bench = knowing.bench(task)
    found = bench.evaluate("test", ())
    sides = {s: getattr(task, s).test for s in SIDES}
    said = {s: knowing.answer([e.image for e in es], [ASK["colour"]] * len(es)) for s, es in sides.items()}
    assert bench.answers["original"] == said
    hits = {s: [e.labels["colour"] in text for e, text in zip(sides[s], said[s], strict=True)] for s in SIDES}
    assert found.forget_accuracy.value == sum(hits["forget"]) / len(hits["forget"])
    assert found.retain_accuracy.value == pytest.approx(sum(hits["retain"]) / len(hits["retain"]))


def test_any_question_is_asked_about_the_forget_pictures_and_answers_are_looked_through_for_the_name(knowing, task):
    bench, pictures = knowing.bench(task), [e.image for e in task.forget.test]
    said = bench.ask(ASK["colour"].upper())
    assert said == knowing.answer(pictures, [ASK["colour"].upper()] * len(pictures))
    assert bench.ask(ASK["colour"]) == ["red"] * len(pictures)
    assert [bench.names_it(text) for text in ("It is Red.", "reddish", "blue")] == [True, False, False]


def test_an_alias_in_a_written_answer_counts_as_the_name(knowing, task, monkeypatch):
    named = replace(QUESTIONS, aliases=lambda axis, name: ("scarlet",) if name == "red" else ())
    adapter = VlmAdapter(knowing.model, knowing.processor, name="x", questions=named)
    monkeypatch.setattr(adapter, "write", lambda prompts, *_, **__: ["scarlet"] * len(prompts))
    assert adapter.bench(task).evaluate("test", ()).forget_accuracy.value == 1


def test_a_picture_is_recalled_by_how_likely_the_name_is_and_an_edit_is_asked_whether_it_gives_any_away(knowing, task):
    bench = knowing.bench(task, batch=8, mismatch_weight=1.0, seed=0)
    pictures = [e.image for e in task.forget.test]
    rows = knowing.name_logprobs(pictures, [ASK["colour"]] * len(pictures), "red")
    assert bench.recall("test").tolist() == pytest.approx([sum(v for _, v in row) / len(row) for row in rows])
    found = membership(knowing, bench, Patch())
    assert found.edited == found.original and not found.told and found.by == "how likely it is to name red in them"
    assert found.edited.n == found.members + found.unseen == len(task.forget.gradient) + len(pictures)


def test_the_concept_score_is_the_mean_log_probability_a_token(knowing, task):
    bench = knowing.bench(task)
    pictures = [task.forget.search[i].image for i in (0, 2)]
    rows = knowing.name_logprobs(pictures, [ASK["colour"]] * 2, "red")
    with torch.no_grad():
        found = bench.concept_score([0, 2]).item()
    assert found == pytest.approx(sum(v for row in rows for _, v in row) / sum(map(len, rows)), abs=1e-5)


def test_where_a_written_answer_still_holds_the_name_another_must_lead_by_more(knowing, task):
    bench = knowing.bench(task)
    held = bench.evaluate("search", ()).forget_accuracy.value
    assert held == 1 and bench.measure == LEAD and not bench.confirm() and bench.measure == LEAD + STRICTER
    with random_patch(knowing, knowing.units(("layer",), ("image",)), 1.0).applied(knowing.model):
        assert bench.confirm() and bench.measure == LEAD + STRICTER


@pytest.mark.parametrize("lead, kept", [(0.5, False), (1.5, True)])
def test_in_the_search_a_neighbour_must_lead_clearly_and_anything_else_at_all(knowing, task, lead, kept):
    bench = knowing.bench(task)
    assert bench.evaluate("search", ()).neighbor_accuracy.value == 1
    found = bench._scored("search", (), {})
    narrow = []
    for asked, scores in zip(bench.asked("retain", "search"), found.retain, strict=True):
        narrow.append(torch.full_like(scores, -lead))
        narrow[-1][asked.right] = 0
    bench._scored = lambda *_: replace(found, retain=narrow)
    now = bench.evaluate("search", ("language",))
    assert now.neighbor_accuracy.value == kept
    count = now.retain_accuracy.n
    assert round(now.retain_accuracy.value * count) == count - (0 if kept else now.neighbor_accuracy.n)


def test_without_known_neighbours_the_classes_most_confused_with_the_target_are_taken(knowing, task):
    bench = knowing.bench(task)
    ids = [knowing.answer_ids(name) for name in task.axes[0].classes]
    prompts = knowing.prompts([e.image for e in task.forget.gradient], [ASK["colour"]] * len(task.forget.gradient))
    mean = knowing.choice_scores(prompts, knowing.features(prompts), ids).mean(0)
    expected = [task.axes[0].classes[i] for i in mean.argsort(descending=True).tolist()[1:3]]
    assert list(bench.neighbours) == expected and len(bench.evaluate("search", ()).by_neighbor) == 2


def test_a_forgotten_pictures_other_axes_count_as_cross_accuracy(make_task):
    made = make_task(each=1)
    bench = shared("llava").bench(made)
    base = bench.evaluate("search", ())
    asked = bench.asked("forget", "search")
    assert [a.axis for a in asked] == [0, 1] * (len(asked) // 2)
    assert base.cross_accuracy.n == base.forget_accuracy.n == len(made.forget.search)
    turns = [a.axis for a in bench.asked("retain", "search") if a.example.labels["colour"] not in made.neighbours]
    assert 0 < sum(turns) < len(turns)  # both axes, one a picture
    assert len(bench.asked("retain", "test")) == 2 * len(made.retain.test)


# ---------------------------------------------------------------- one real edit


@pytest.mark.parametrize(("forget_loss", "towers"), [("answer", {"language"}), ("alignment", {"image"})])
def test_growth_forgets_what_the_model_said_and_is_undone(knowing, task, forget_loss, towers, weights_of, same_weights):
    adapter = knowing
    before = weights_of(adapter.model)
    reds, others = [e.image for e in task.forget.test], [e.image for e in task.retain.test]
    said = lambda images: adapter.answer(images, [ASK["colour"]] * len(images), max_new_tokens=4)  # noqa: E731
    known = said(others)
    assert said(reds) == ["red"] * len(reds)
    config = RazorConfig(rounds=5, retain_budget=0.05, retain_weight=1.0, granularity=("head", "mlp"), tau=0.0)
    growth = Growth(adapter, task, replace(config, forget_loss=forget_loss))
    for _ in growth.run():
        assert same_weights(adapter.model, before)
    assert growth.now.forget_accuracy.value <= 1 / 6  # of six pictures; the answers decide
    assert {growth.every[n].tower for n in growth.edit_set.members} == towers
    with growth.patch.applied(adapter.model):
        assert "red" not in said(reds)
        kept = sum(a == b for a, b in zip(said(others), known, strict=True)) / len(known)
        assert kept >= 0.9
    assert same_weights(adapter.model, before) and said(reds) == ["red"] * len(reds)


def two_colours(make_task):
    """A small task for models that know nothing."""
    made = make_task(each=1)
    keep = lambda split: tuple(e for e in split if e.labels["colour"] in ("red", "green", "blue"))  # noqa: E731
    parts = {s: Split(*map(keep, vars(getattr(made, s)).values())) for s in SIDES}
    colour = Axis("colour", {name: (name,) for name in ("red", "green", "blue")})
    return Task("red", "colour", (colour,), ("green",), **parts)


@pytest.mark.parametrize("tower", ["image", "projector", "language"])
def test_one_round_in_any_tower_lowers_the_names_probability_and_is_undone(
    adapter, tower, make_task, weights_of, same_weights
):
    before, unedited = weights_of(adapter.model), logits(adapter)
    kinds = ("mlp",) if tower == "projector" else ("head",)
    settings = {"inner_steps": 2, "start_units": 2, "tau": 0.0, "batch": 4, "step_size": 0.05, "retain_budget": 1.0}
    growth = Growth(
        adapter, two_colours(make_task), RazorConfig(rounds=1, towers=(tower,), granularity=kinds, **settings)
    )
    (done,) = growth.run()
    assert done.accepted and {growth.every[name].tower for name in done.members} == {tower}
    assert done.after.forget_probability.value < done.before.forget_probability.value
    assert same_weights(adapter.model, before)
    with growth.patch.applied(adapter.model):
        assert not torch.equal(logits(adapter), unedited)
    assert same_weights(adapter.model, before) and torch.equal(logits(adapter), unedited)


@pytest.mark.parametrize("kind", OTHERS)
def test_models_built_alike_are_found_by_structure_edited_and_undone(kind, make_task, weights_of, same_weights):
    adapter = shared(kind)
    before, unedited = weights_of(adapter.model), logits(adapter)
    found = {t: [len(adapter.units((k,), (t,))) for k in ("head", "mlp")] for t in adapter.towers}
    assert found == {"image": [6, 3], "projector": [0, 2], "language": [12, 2]}
    for unit in adapter.units(("head",)):
        if ".head." in unit.name:
            assert torch.equal(with_zeros(adapter, unit.slices), with_head_cut(adapter, unit)), unit.name
    settings = {"inner_steps": 2, "start_units": 2, "tau": 0.0, "batch": 4, "step_size": 0.05, "retain_budget": 1.0}
    growth = Growth(adapter, two_colours(make_task), RazorConfig(rounds=1, towers=("image", "language"), **settings))
    (done,) = growth.run()
    assert done.accepted and done.after.forget_probability.value < done.before.forget_probability.value
    assert same_weights(adapter.model, before) and torch.equal(logits(adapter), unedited)


def test_a_picture_read_in_several_crops_is_no_single_array():
    adapter = shared("internvl")
    picture = PICTURES[1]
    (prompt,) = adapter.prompts([picture], ["?"])
    crops = len(prompt.picture["pixel_values"])
    assert crops > 1 and prompt.places == 4 * crops and adapter.as_read(picture).size == picture.size
    with pytest.raises(ModelError, match=r"^tiny internvl reads a picture in parts, not as one array of pixels\.$"):
        adapter.pixels([picture])
