"""What the search measures and what is reported, against numbers worked out by hand on a denoiser that is a table."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from PIL import Image
from tiny_adapters import make_task

from razor.adapters import denoising
from razor.adapters.base import GLANCE
from razor.adapters.denoising import (
    LEVELS,
    DiffusionBench,
    _similar,
    matched,
    remaining,
    still_there,
    token_distance,
    tolerated,
)
from razor.adapters.diffusion import Words
from razor.config import RazorConfig
from razor.errors import InputError, ModelError, Stopped
from razor.examples import Axis, Example, Split, Task
from razor.growth import Growth
from razor.minicanvas import captions
from razor.minicanvas.tasks import in_unseen_words
from razor.patches import Patch
from razor.units import Slice, Unit

# prompt -> what the frozen denoiser predicts, whatever the picture and the noise
TABLE = {
    "red cat": (4.0, 0.0), "red": (0.0, 0.0), "blue cat": (4.0, 4.0), "blue": (0.0, 4.0),
    "red dog": (10.0, 0.0), "blue dog": (10.0, 4.0), "red fox": (20.0, 0.0), "blue fox": (20.0, 4.0),
    "red hat": (30.0, 0.0), "blue hat": (30.0, 4.0),
}  # fmt: skip
EFFECT = 8.0  # both cats lie 4 from their anchors in one of two numbers: 16 / 2
WORDS = ("<pad>", "<start>", "<end>", "red", "blue", "cat", "dog", "fox", "hat")
ANGLES = {"<start>": 0, "red": 90, "blue": 60, "cat": 180, "dog": 210, "fox": 240, "hat": 270, "<end>": 0, "<pad>": 0}


class Tokenizer:
    """Numbers of words, with a start, an end, and padding."""

    def __call__(self, text, *, padding=None, max_length=None, truncation=False):
        ids = [WORDS.index(word) for word in ("<start>", *text.split(), "<end>")]
        return type("Encoding", (), {"input_ids": ids + [0] * ((max_length or 0) - len(ids))})


class Fake:
    """An adapter whose denoiser is the table, plus an edit by prompt; it remembers what it was asked."""

    name, guidance, steps, quick_steps, width, dtype, reruns = "toy", 2.0, 4, 2, 1, torch.float32, False

    def __init__(self):
        self.towers = {"text": "text", "cross": ""}
        self.judge, self.edit, self.turned, self.asked, self.drawn = None, {}, 0, [], []
        self.model = torch.nn.Linear(1, 1)

    def latents(self, images):
        return torch.stack([torch.full((1, 1, 2), float(image.getpixel((0, 0))[0])) for image in images])

    def noised(self, clean, noise, level):
        return clean, level, torch.zeros_like(clean)

    def tokenizers(self):
        return [(Tokenizer(), 5)]

    def cut(self, prompt):
        return ""

    def encode(self, prompts):
        """States turned by `turned` degrees; the summary is the prompt's row of the table."""
        ids = [Tokenizer()(p, max_length=5).input_ids for p in prompts]
        angles = torch.tensor([[math.radians(ANGLES[WORDS[i]] + self.turned) for i in row] for row in ids])
        summary = torch.tensor([TABLE[p] for p in prompts])
        return Words(torch.stack([angles.cos(), angles.sin()], -1), summary)

    def predict(self, noisy, timesteps, words):
        self.asked += words.pooled.tolist()
        names = {value: name for name, value in TABLE.items()}
        now = [self.edit.get(names[tuple(row)], row) for row in words.pooled.tolist()]
        return torch.tensor(now).reshape(-1, 1, 1, 2)

    def batches(self, asked):
        return [asked[i : i + 2] for i in range(0, len(asked), 2)]

    def draw(self, prompts, seeds, steps=None, stop=lambda: False):
        if stop():
            return []
        self.drawn += zip(prompts, seeds, strict=True)
        return list(prompts)


class Judge:
    """Sees what its table says of a prompt, else the truth; remembers nothing."""

    name, guesses = "a table", False

    def __init__(self, **seen):
        self.seen = {name.replace("_", " "): labels for name, labels in seen.items()}

    def reads(self, axes):
        return [axis.name for axis in axes] == ["label", "colour"]

    def __call__(self, images, axes):
        truth = [dict(zip(("colour", "label"), prompt.split(), strict=True)) for prompt in images]
        return [known | self.seen.get(prompt, {}) for prompt, known in zip(images, truth, strict=True)]


def bench_of(adapter, task=None, **options):
    """A bench whose unedited answers are recorded, and for which a quarter of a concept is too much."""
    options = {"batch": 64, "mismatch_weight": 1.0, "seed": 0, "beneath": Patch()} | options
    bench = DiffusionBench(adapter, task or make_task(), **options)
    bench.measure = 0.25
    bench.evaluate("search", ())
    return bench


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """The constants the numbers below were worked out with, whatever they are tuned to."""
    monkeypatch.setattr(denoising, "POINTS", {"gradient": (48, 96, 2, 2), "search": (20, 64, 2, 1)})
    monkeypatch.setattr(denoising, "SURENESS", 12.0)
    monkeypatch.setattr(denoising, "TIGHTER", 0.6)
    monkeypatch.setattr(denoising, "PUSH", 0.25)


@pytest.fixture
def adapter():
    return Fake()


@pytest.fixture
def bench(adapter):
    return bench_of(adapter)


# ---------------------------------------------------------------- what remains


def test_what_remains_is_the_share_of_the_way_from_anchor_to_concept():
    concept, anchor = torch.tensor([[4.0, 0.0]] * 6), torch.tensor([[0.0, 2.0]] * 6)
    lean = concept - anchor  # (4, -2), of length squared 20
    now = torch.stack([concept[0], anchor[0], anchor[0] + lean[0] / 4, concept[0] + lean[0],
                       anchor[0] - lean[0] / 2, anchor[0] + torch.tensor([1.0, 2.0])])  # fmt: skip
    as_pictures = [t.reshape(6, 1, 1, 2) for t in (now, concept, anchor)]
    assert remaining(*as_pictures).tolist() == pytest.approx([1, 0, 0.25, 2, -0.5, 0])  # the last one moved sideways


def test_a_prompt_that_is_its_own_anchor_has_nothing_that_remains():
    same = torch.ones(1, 1, 1, 2)
    assert remaining(same + 3, same, same).tolist() == [0]


def test_sureness_is_a_half_at_the_bar_and_every_step_towards_it_counts():
    left = torch.tensor([-1.0, 0.0, 0.075, 0.1, 0.55, 0.99, 1.0, 3.0])
    found = still_there(left, 0.1).tolist()
    assert found[2] == pytest.approx(1 / (1 + math.exp(3))) and found[2] < 0.05
    assert found[3:6] == pytest.approx([0.5, 0.75, 0.5 + 0.5 * 0.89 / 0.9])
    assert found[6:] == [1, 1] and found == sorted(found) and found[0] < 1e-6


# ---------------------------------------------------------------- tokens


S, E, P = 1, 2, 0  # start, end, padding


@pytest.mark.parametrize(
    "prompt, anchor, expected",
    [
        # equal prompts, padded with a token of its own or with the end
        ([S, 5, 6, E, P, P], [S, 5, 6, E, P, P], [0, 1, 2, 3, 4, 5]),
        ([S, 5, 6, E, E, E], [S, 5, 6, E, E, E], [0, 1, 2, 3, 4, 5]),
        # one word for another: the end and the padding stand beside each other
        ([S, 5, 6, E, E, E], [S, 5, 7, E, E, E], [0, 1, 2, 3, 4, 5]),
        # two words for one: both stand beside the one
        ([S, 5, 6, 7, E, E], [S, 5, 8, E, E, E], [0, 1, 2, 2, 3, 4]),
        # one word for two: it stands beside the last of them, what follows is one further on
        ([S, 5, 6, E, E, E], [S, 5, 7, 8, E, E], [0, 1, 3, 4, 5, 5]),
        # left out at the end, in the middle, and at the beginning: beside the word before
        ([S, 5, 6, 7, E, E], [S, 5, E, E, E, E], [0, 1, 1, 1, 2, 3]),
        ([S, 5, 6, 7, E, P], [S, 5, 7, E, P, P], [0, 1, 1, 2, 3, 4]),
        ([S, 6, 7, 5, E, E], [S, 5, E, E, E, E], [0, 0, 0, 1, 2, 3]),
        # no start mark, as in T5, and nothing before what is left out
        ([6, 5, E, P, P, P], [5, E, P, P, P, P], [0, 0, 1, 2, 3, 4]),
        # the empty anchor
        ([S, 5, 6, E, E, E], [S, E, E, E, E, E], [0, 0, 0, 1, 2, 3]),
        # nothing in common but the marks
        ([S, 5, 6, E, P, P], [S, 7, 8, E, P, P], [0, 2, 2, 3, 4, 5]),
        # a word said twice is not counted as beginning and end at once
        ([S, 5, 5, E, E, E], [S, 5, E, E, E, E], [0, 1, 1, 2, 3, 4]),
        # a prompt that fills the encoder
        ([S, 5, 6, 7, 8, E], [S, 5, 8, E, E, E], [0, 1, 1, 1, 2, 3]),
    ],
)
def test_tokens_stand_beside_those_of_the_anchor(prompt, anchor, expected):
    assert matched(prompt, anchor) == expected


def test_token_distance_is_the_mean_of_one_minus_the_cosines():
    states = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]])
    anchors = torch.tensor([[[3.0, 0.0], [0.0, -1.0], [9.0, 9.0]]])
    match = torch.tensor([[0, 1, 0]])  # cosines 1, -1, and 1 / sqrt 2
    expected = (0 + 2 + 1 - 2**-0.5) / 3
    assert token_distance(states, anchors, match).tolist() == pytest.approx([expected])
    more = torch.cat([states, torch.zeros(1, 2, 2)], 1)  # what follows the matched tokens is no word
    assert token_distance(more, torch.cat([anchors, torch.zeros(1, 2, 2)], 1), match).tolist() == [
        pytest.approx(expected)
    ]


def test_token_distance_in_half_precision_keeps_the_digits_of_small_angles():
    states = torch.tensor([[[1.0, 0.02]]])
    near = token_distance(states.half(), torch.tensor([[[1.0, 0.0]]]).half(), torch.zeros(1, 1, dtype=torch.long))
    assert near.item() == pytest.approx(2e-4, rel=0.01)


def test_similar_prompts_share_most_words_and_the_prompt_is_none_of_them():
    known = ["a red cat", "a blue cat", "the blue dog", "a red dog", "hat"]
    assert _similar("a red cat", known) == ["a blue cat", "a red dog", "the blue dog"]
    assert _similar("hat", ["hat", "red hat"]) == ["red hat"] * 3
    assert _similar("hat", ["hat"]) == ["", "", ""]


# ---------------------------------------------------------------- the search metrics


def test_the_unedited_model_remembers_and_keeps_everything(bench):
    now = bench.evaluate("search", ())
    assert now.forget_accuracy.value == now.forget_probability.value == now.association == 1
    assert now.retain_accuracy.value == now.neighbor_accuracy.value == now.prediction_stability.value == 1
    assert now.cross_accuracy.value == 1 and now.retrieval_stability is None
    assert (now.forget_accuracy.n, now.retain_accuracy.n, now.neighbor_accuracy.n) == (2, 6, 2)  # pictures, not points
    assert {name: m.n for name, m in now.by_neighbor.items()} == {"dog": 2}


def test_metrics_after_an_edit_equal_those_counted_by_hand(adapter, bench):
    assert bench.effect == EFFECT
    adapter.edit = {
        "red cat": (2.0, 0.0),  # half of it remains
        "blue cat": (0.4, 1.0),  # a tenth remains, and it lies nearer to "red" than to its own anchor "blue"
        "red dog": (12.0, 0.0),  # moved by 2, and still nearest to its own: 2 of 8
        "blue dog": (16.0, 4.0),  # nearer to a blue fox: 18 of 8, counted as all
    }
    now = bench.evaluate("search", ("cross",))
    assert now.forget_accuracy.value == 0.5
    assert now.association == pytest.approx((0.5 + 0.1) / 2)
    sure = (0.5 + 0.5 * 0.25 / 0.75, 1 / (1 + math.exp(12 * 0.6)))
    assert now.forget_probability.value == pytest.approx(sum(sure) / 2)
    assert now.cross_accuracy.value == 0.5
    assert now.retain_accuracy.value == pytest.approx(5 / 6)
    assert now.neighbor_accuracy.value == now.by_neighbor["dog"].value == 0.5
    assert now.prediction_stability.value == pytest.approx((4 + (1 - 2 / 8) + 0) / 6)
    assert bench.evaluate(GLANCE, ("cross",)) == now


def test_without_a_judge_the_test_split_is_counted_in_the_same_way(adapter, bench):
    assert bench.evaluate("test", ()).forget_accuracy.value == 1
    adapter.edit = {"red cat": (0.0, 0.0)}
    now = bench.evaluate("test", ("cross",))
    assert (now.forget_accuracy.value, now.forget_accuracy.n, now.unlearning_accuracy) == (0.5, 2, None)


def test_predictions_of_an_edit_seen_lately_are_not_made_again(adapter, bench):
    def evaluated(**options):
        """Forget accuracy, and how many predictions it took."""
        adapter.asked.clear()
        return bench.evaluate("search", ("cross",), **options).forget_accuracy.value, len(adapter.asked)

    assert evaluated(keys={"cross": "a"}) == (1, 10) and evaluated(keys={"cross": "a"}) == (1, 0)
    assert evaluated(keys={"cross": "b"}) == (1, 10) and evaluated() == (1, 10) == evaluated()
    adapter.edit = {"red cat": (0.0, 0.0)}
    assert evaluated(keys={"cross": "a"}) == (1, 0)  # the name stands for the edit
    assert evaluated(keys={"cross": "c"}) == (0.5, 10)


def test_frozen_words_are_used_for_what_leaves_the_encoders_alone(adapter, bench):
    adapter.encode = None
    assert bench.evaluate("search", ("cross",)).forget_accuracy.value == 1


def test_a_task_without_neighbours_or_a_second_anchor_has_no_numbers_for_them(adapter):
    whole = make_task()
    forget = Split(*(part[:1] for part in vars(whole.forget).values()))
    now = bench_of(adapter, replace(whole, neighbours=(), forget=forget)).evaluate("search", ())
    assert now.neighbor_accuracy is None and now.cross_accuracy is None and now.by_neighbor == {}


def test_captions_that_are_their_own_anchors_are_refused(adapter):
    whole = make_task()
    unnamed = lambda part: tuple(replace(e, caption=e.anchor) for e in part)  # noqa: E731
    forget = Split(*map(unnamed, vars(whole.forget).values()))
    with pytest.raises(InputError) as caught:
        bench_of(adapter, replace(whole, forget=forget))
    assert str(caught.value) == (
        "Every forget caption is its own anchor, such as 'red': nothing is left to forget. Name 'cat' in the captions, "
        "or give another anchor."
    )


@pytest.mark.parametrize("pictures", [1, 3, 48])
def test_the_concept_score_takes_any_picture_of_the_search_split(adapter, pictures):
    whole = make_task()
    many = tuple(replace(whole.forget.search[i % 2], source=str(i)) for i in range(pictures))
    bench = bench_of(adapter, replace(whole, forget=replace(whole.forget, search=many)))
    adapter.edit = {"red cat": (1.0, 0.0), "blue cat": (1.0, 4.0)}
    assert bench.concept_score(range(pictures)).item() == pytest.approx(0.25)
    assert bench.concept_score([pictures - 1]).item() == pytest.approx(0.25)


def test_a_picture_counts_by_the_point_at_which_most_remains(adapter, bench):
    highest = bench.points("forget", "search").timesteps.reshape(-1, 2).amax(1)

    def predict(noisy, timesteps, words):  # a cat is still there at its picture's higher level alone
        v = words.pooled.reshape(-1, 1, 1, 2).clone()
        v[~torch.isin(timesteps, highest), ..., 0] = 0.0
        return v

    adapter.predict = predict
    now = bench.evaluate("search", ("cross",))
    assert (now.forget_accuracy.value, now.forget_accuracy.n, now.association) == (1, 2, 0.5)


def test_predictions_that_are_no_numbers_are_an_error_and_no_forgetting(adapter, bench):
    adapter.edit = {"red cat": (math.nan, 0.0)}
    with pytest.raises(ModelError, match=r"NaN or infinite in float32: .* Weaken the edit"):
        bench.evaluate("search", ("cross",))


# ---------------------------------------------------------------- points


def test_every_point_has_a_noise_level_of_its_own_from_all_over_the_range(bench):
    points = bench.points("forget", "gradient")
    assert [e.caption for e in points.examples] == ["red cat"] * 2 + ["blue cat"] * 2
    low, high = LEVELS
    assert sorted(points.timesteps.tolist()) == pytest.approx([low + (high - low) * (i + 0.5) / 4 for i in range(4)])
    assert points.timesteps.tolist() != sorted(points.timesteps.tolist())


def test_points_follow_from_the_seed(adapter):
    levels = lambda seed: bench_of(adapter, seed=seed).points("retain", "gradient").timesteps.tolist()  # noqa: E731
    assert levels(0) == levels(0) != levels(1)


def plain(name, i):
    return Example(Image.new("RGB", (8, 8)), f"red {name}", {"label": name}, str(i), "red" if name == "cat" else "")


@pytest.mark.parametrize(
    "dogs, foxes, expected",
    [(40, 90, (16, 48)), (40, 40, (24, 40)), (4, 90, (4, 60)), (60, 30, (34, 30)), (90, 0, (64, 0))],
)
def test_a_quarter_or_more_of_the_retain_points_are_neighbours(adapter, dogs, foxes, expected):
    retain = tuple(plain("dog", i) for i in range(dogs)) + tuple(plain("fox", i) for i in range(foxes))
    forget = (plain("cat", 0),)
    label = Axis("label", {name: (f"red {name}",) for name in ("cat", "dog", "fox")})
    task = Task("cat", "label", (label,), ("dog",), Split(forget, forget, forget), Split(retain, retain, retain))
    names = [e.labels["label"] for e in bench_of(adapter, task).points("retain", "search").examples]
    assert (names.count("dog"), names.count("fox")) == expected


# ---------------------------------------------------------------- losses


def test_the_ascended_loss_is_minus_the_distance_from_the_anchors_and_of_the_tokens(adapter, bench):
    # Of a cat's five tokens all but "cat" are the anchor's: at 180 degrees, it stands beside the colour's 90 or 60.
    tokens = ((1 - math.cos(math.radians(90))) + (1 - math.cos(math.radians(120)))) / 2 / 5
    assert bench.scoring_terms()["forget"]().item() == pytest.approx(-1.5625 - tokens, abs=1e-5)
    # The goal lies a quarter of the way beyond the anchor: 1.25 ** 2 of the squared distance away, 0.75 ** 2 half way.
    assert bench.step_terms(1, ("cross",))["forget"]().item() == pytest.approx(-1.5625)
    adapter.edit = {"red cat": (2.0, 0.0), "blue cat": (2.0, 4.0)}
    assert bench.step_terms(1, ("cross",))["forget"]().item() == pytest.approx(-0.5625)
    adapter.turned = 10  # an edited encoder turns every state by 10 degrees from what its anchor was
    cosines = [math.cos(math.radians(a)) for a in (10, 10, 100, 10, 10, 10, 10, 130, 10, 10)]
    expected = -0.5625 - sum(1 - c for c in cosines) / 10
    assert bench.step_terms(1, ("text",))["forget"]().item() == pytest.approx(expected, abs=1e-5)


def test_the_kept_loss_is_the_denoising_error_and_the_drift_of_retained_prompts_and_anchors(adapter):
    weight, all_of_it = 3.0, 64
    bench = bench_of(adapter, mismatch_weight=weight, batch=all_of_it)
    rows = [TABLE[f"{colour} {name}"] for name in ("dog", "fox", "hat") for colour in ("red", "blue")]
    error = sum(x * x + y * y for x, y in rows) / 12  # the target is zero
    assert bench.scoring_terms()["retain"]().item() == pytest.approx(error)
    assert bench.step_terms(1, ("cross",))["keep"]().item() == pytest.approx(error)  # no drift yet
    adapter.edit = {"red dog": (10.0, 2.0), "red": (0.0, 1.0), "blue": (0.0, 5.0)}
    drift = (2**2 / 12) + (1**2 / 2)
    expected = error + 2**2 / 12 + weight * drift / EFFECT
    assert bench.step_terms(1, ("cross",))["keep"]().item() == pytest.approx(expected)


def test_points_that_do_not_fit_together_give_the_same_losses_and_gradients(adapter, monkeypatch):
    bench, weight = bench_of(adapter, mismatch_weight=2.0), torch.tensor(0.5, requires_grad=True)
    predict = adapter.predict
    adapter.predict = lambda *inputs: predict(*inputs) * weight
    sizes = []

    def both():
        found = []
        for name in ("forget", "keep"):
            value = bench.step_terms(3, ("cross",))[name]()
            found += [value.item(), torch.autograd.grad(value, weight)[0].item()]
        return found

    whole = both()
    two = 2 * 2 * adapter.width  # points of two places
    monkeypatch.setattr(denoising, "AT_ONCE", {"gradient": two, "search": two})
    adapter.predict = lambda noisy, *more: sizes.append(len(noisy)) or predict(noisy, *more) * weight
    assert both() == pytest.approx(whole, abs=1e-6) and max(sizes) == 2


def test_batches_depend_on_seed_and_step_alone(adapter):
    whole = make_task(each=4)
    draws = lambda seed, step: bench_of(adapter, whole, batch=4, seed=seed).step_terms(step, ())["keep"]().item()  # noqa: E731
    assert draws(0, 1) == draws(0, 1)
    assert len({draws(seed, step) for seed in range(2) for step in range(4)}) > 3


# ---------------------------------------------------------------- drawn pictures


def test_a_judge_that_cannot_read_the_axes_is_not_asked(adapter):
    adapter.judge = Judge()
    assert bench_of(adapter).judge is adapter.judge
    task = make_task()
    assert bench_of(adapter, replace(task, axes=task.axes[:1])).judge is None


def test_the_concept_is_known_where_pictures_show_it(adapter):
    assert bench_of(adapter).knows(None)  # nobody can say otherwise
    adapter.judge = Judge(red_cat={"label": "dog"})
    bench = bench_of(adapter)
    assert bench.knows(None)  # one of two, of four classes
    bench.judge = Judge(red_cat={"label": "dog"}, blue_cat={"label": "none"})
    assert not bench.knows(None)


def test_a_few_pictures_that_all_show_the_concept_will_do_to_say_that_it_is_known(adapter, monkeypatch):
    counts = []
    monkeypatch.setattr(denoising, "FEW", 2)
    adapter.judge = Judge()
    bench = bench_of(adapter, make_task(each=4))
    draw = bench.draw
    monkeypatch.setattr(bench, "draw", lambda asked, **more: counts.append(len(asked)) or draw(asked, **more))
    assert bench.knows(None) and counts == [2]
    bench.judge = Judge(red_cat={"label": "dog"})
    assert bench.knows(None) and counts[1] == 2 < counts[2]  # one of them does not, so more are looked at


def test_confirming_raises_the_demand_until_pictures_no_longer_show_the_concept(adapter):
    adapter.judge = Judge()
    bench = bench_of(adapter)
    adapter.edit = {"red cat": (0.8, 0.0), "blue cat": (0.8, 4.0)}  # a fifth remains: below the bar of a quarter
    assert bench.evaluate("search", ("cross",), keys={"cross": "a"}).forget_accuracy.value == 0
    assert not bench.confirm() and bench.measure == pytest.approx(0.25 * 0.6)
    assert {prompt for prompt, _ in adapter.drawn} == {"red cat", "blue cat"}
    assert bench.evaluate("search", ("cross",), keys={"cross": "a"}).forget_accuracy.value == 1  # above 0.15
    bench.judge = Judge(red_cat={"label": "none"}, blue_cat={"label": "dog"})
    assert bench.confirm() and bench.measure == pytest.approx(0.25 * 0.6)
    bench.judge = None
    assert bench.confirm()


def test_pictures_without_the_concept_let_more_of_it_remain(adapter):
    adapter.judge = Judge(red_cat={"label": "none"}, blue_cat={"label": "dog"})
    bench = bench_of(adapter)
    adapter.edit = {"red cat": (1.6, 0.0), "blue cat": (0.8, 4.0)}  # two fifths and one fifth remain
    assert bench.evaluate("search", ("cross",)).forget_accuracy.value == 0.5
    assert bench.relent() and bench.measure == pytest.approx(0.4 / 0.75)
    now = bench.evaluate("search", ("cross",))
    assert now.forget_accuracy.value == 0 and now.forget_probability.value < 0.05


@pytest.mark.parametrize("left, saw", [(0.4, "cat"), (0.55, "none"), (0.4, None)])
def test_what_pictures_show_half_is_left_of_or_nobody_sees_is_not_let_pass(adapter, left, saw):
    adapter.judge = saw and Judge(red_cat={"label": saw}, blue_cat={"label": "none"})
    bench = bench_of(adapter)
    adapter.edit = {"red cat": (4 * left, 0.0)}
    before = bench.measure
    assert not bench.relent() and bench.measure == before


def test_a_judge_that_has_to_guess_is_allowed_what_guessing_gives(adapter):
    assert (tolerated(20, 0.0), tolerated(20, 0.25), tolerated(1, 0.5)) == (0, 8, 1)
    upto = sum(math.comb(20, k) * 0.25**k * 0.75 ** (20 - k) for k in range(8))
    assert upto < 0.95 <= upto + math.comb(20, 8) * 0.25**8 * 0.75**12
    adapter.judge = Judge(red_cat={"label": "dog"})  # one of two still shows the cat
    bench = bench_of(adapter)
    assert not bench.confirm()
    adapter.judge.guesses = True
    assert bench.confirm()


def test_drawing_to_report_is_counted_and_can_be_stopped(adapter):
    adapter.judge, told = Judge(), []
    bench = bench_of(adapter)
    with bench.watch(lambda done, total: told.append((done, total)), lambda: len(told) >= 3), pytest.raises(Stopped):
        bench.evaluate("test", ())
    assert told == [(2, 8), (4, 8), (6, 8)]
    assert bench.evaluate("test", ()).unlearning_accuracy.n == 2  # nobody watches any more
    with pytest.raises(Stopped):
        bench.confirm(lambda: True)


def test_reported_pictures_of_the_bundled_world_answer_sentences_no_edit_was_made_on():
    labels = {"object": "cat", "style": "neon"}
    e = Example(Image.new("RGB", (8, 8)), captions.full_caption(labels), labels, "x")
    assert [in_unseen_words(e, turn).caption for turn in range(2)] == list(captions.unseen_captions(labels))
    own = replace(e, caption="my cat in neon light")
    assert in_unseen_words(own, 0) is own


def test_pictures_of_one_prompt_come_from_one_noise_whatever_the_edit(adapter):
    adapter.judge = Judge()
    bench = bench_of(adapter)
    bench.evaluate("test", ())
    before, adapter.drawn = adapter.drawn, []
    bench.evaluate("test", ("cross",))
    assert adapter.drawn == before and len({seed for _, seed in before}) == len(before) == 8


def test_reported_numbers_equal_those_counted_by_hand(adapter):
    adapter.judge = Judge()
    bench = bench_of(adapter)
    before = bench.evaluate("test", ())
    assert before.unlearning_accuracy.value == 0
    assert before.in_domain_retain_accuracy.value == before.cross_domain_retain_accuracy.value == 1
    bench.judge = Judge(
        red_cat={"label": "none", "colour": "blue"},  # forgotten, and its colour lost with it
        red_dog={"label": "cat"},
        blue_dog={"label": "fox", "colour": "red"},
        blue_hat={"colour": "none"},
    )
    now = bench.evaluate("test", ("cross",))
    assert now.forget_accuracy.value == now.unlearning_accuracy.value == 0.5  # one of two cats
    assert (now.in_domain_retain_accuracy.value, now.in_domain_retain_accuracy.n) == (pytest.approx(4 / 6), 6)
    assert (now.cross_domain_retain_accuracy.value, now.cross_domain_retain_accuracy.n) == (pytest.approx(5 / 8), 8)
    assert (now.retain_accuracy.value, now.retain_accuracy.n) == (pytest.approx(8 / 12), 12)
    assert now.cross_accuracy.value == 0.5 and now.neighbor_accuracy.value == now.by_neighbor["dog"].value == 0
    assert bench.pictures["edited"]["forget"] == ["red cat", "blue cat"] and len(bench.pictures["original"]) == 2
    adapter.drawn.clear()
    assert bench.evaluate("test", ()) == before and adapter.drawn == []  # the original is drawn and judged once


def test_benches_that_report_on_the_same_prompts_draw_the_original_once(adapter):
    adapter.judge = Judge()
    first, again, other = bench_of(adapter), bench_of(adapter), bench_of(adapter)
    before = first.evaluate("test", ())
    adapter.drawn.clear()
    again.take_originals(first)
    assert again.evaluate("test", ()) == before and adapter.drawn == []
    other.seed = 7
    other.take_originals(first)
    other.evaluate("test", ())
    assert len(adapter.drawn) == 8  # from other noise


def test_what_the_task_has_nothing_to_count_for_is_not_reported(adapter):
    adapter.judge = Judge()
    adapter.judge.reads = lambda axes: True
    task = make_task()
    now = bench_of(adapter, replace(task, axes=task.axes[:1], neighbours=())).evaluate("test", ())
    assert now.cross_domain_retain_accuracy is None and now.cross_accuracy is None and now.neighbor_accuracy is None
    assert now.in_domain_retain_accuracy.n == 6


# ---------------------------------------------------------------- with growth


def test_a_round_that_only_comes_nearer_is_kept():
    """Three quarters of a concept are far above the bar of a strongly guided model; going there counts all the same."""

    class Edited(Fake):
        """One weight: how far predictions for cats go towards their anchors."""

        guidance, steps, family, name, growing, batch = 7.5, 20, "diffusion", "table", ("cross",), 64
        unit = Unit("cross.0.head.0", "head", "cross", 0, 0, (Slice("weight"),))
        forget_losses: Mapping = {}

        def units(self, kinds, towers=None):
            return [self.unit]

        def tower_of(self, parameter):
            return "cross"

        def bench(self, task, **options):
            return DiffusionBench(self, task, **options | {"batch": 64})

        def predict(self, noisy, timesteps, words):
            v = words.pooled.reshape(-1, 1, 1, 2)
            names = {value: name for name, value in TABLE.items()}
            cats = torch.tensor([names[tuple(row)].endswith("cat") for row in words.pooled.tolist()])
            lean = torch.where(cats[:, None], torch.tensor([4.0, 0.0]), torch.zeros(1, 2)).reshape(-1, 1, 1, 2)
            return v - (self.model.weight - 1) * lean

    fake = Edited()
    fake.model = torch.nn.Linear(1, 1, bias=False).requires_grad_(False)
    fake.model.weight.fill_(1.0)
    growth = Growth(fake, make_task(), RazorConfig(inner_steps=2, step_size=0.1, rounds=1, tau=0.0))
    done = growth.next_round()
    assert done.accepted and done.chosen == 2
    # The second step is a quarter longer, of a weight a tenth larger.
    assert done.after.forget_accuracy.value == 1 and done.after.association == pytest.approx(1 - 0.1 - 0.125 * 1.1)
