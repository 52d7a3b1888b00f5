"""Each method on CLIP pinned to its equation by hand, and run to its end on a tiny CLIP."""

from types import SimpleNamespace

import pytest
import torch

from razor import losses
from razor.baselines import slug as slug_module
from razor.baselines.cliperase import WEIGHTS, Pairs, objective
from razor.baselines.head_gate import importance, scores, shut
from razor.baselines.null_space import basis, null_space, projected
from razor.baselines.salun import masks
from razor.baselines.slug import Candidate, candidates, front, mean_gradient, moved, search, slug, together
from razor.baselines.ssd import dampened, over_mean
from razor.baselines.tuning import Budget, Tuning
from razor.errors import ModelError
from razor.patches import Patch
from razor.step import evaluate
from razor.units import Slice, Unit


@pytest.fixture(scope="module")
def bench(trained, task):
    bench = trained.bench(task, batch=16)
    evaluate(trained, bench, Patch(), "search")
    return bench


@pytest.fixture
def tuning(trained, bench):
    return Tuning(trained, bench, Budget(2, 1), 1 / 12, batch=16)


# ---------------------------------------------------------------- SalUn


def test_the_mask_takes_the_largest_magnitudes_over_all_tensors_together():
    grads = {"a": torch.tensor([[1.0, -8.0], [0.0, 3.0]]), "b": torch.tensor([-2.0, 5.0])}
    half = masks(grads, 0.5)  # of 8, 5, 3, 2, 1, 0 the first three
    assert half["a"].tolist() == [[False, True], [False, True]] and half["b"].tolist() == [False, True]
    assert {name: m.sum().item() for name, m in masks(grads, 1 / 3).items()} == {"a": 1, "b": 1}
    assert sum(m.sum().item() for m in masks(grads, 1.0).values()) == 5  # all but the one that is 0
    assert not any(m.any() for m in masks(grads, 0.0).values())


def test_a_weight_the_forget_loss_does_not_depend_on_is_never_in_the_mask():
    found = masks({"a": torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 2.0])}, 0.5)
    assert found["a"].tolist() == [False] * 5 + [True]


# ---------------------------------------------------------------- SSD


def test_dampening_by_hand():
    theta = {"w": torch.tensor([10.0, 10.0, 10.0, -10.0, 10.0, 10.0])}
    forget = {"w": torch.tensor([5.0, 2.0, 1.0, 8.0, 0.0, 4.0])}
    retain = {"w": torch.tensor([1.0, 1.0, 1.0, 2.0, 0.0, 0.0])}
    # alpha 3 selects the first, the fourth and the last; what is left is lambda I_r / I_f, at most all of it
    by = lambda lam: dampened(theta, forget, retain, 3.0, lam).deltas[Slice("w")].tolist()  # noqa: E731
    assert by(1.0) == pytest.approx([-8.0, 0, 0, 7.5, 0, -10.0])  # to 1/5, 1/4 and nothing
    assert by(0.5) == pytest.approx([-9.0, 0, 0, 8.75, 0, -10.0])
    assert by(100.0) == pytest.approx([0, 0, 0, 0, 0, -10.0])  # never more than before


def test_importances_are_in_units_of_their_mean():
    found = over_mean({"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([[8.0], [4.0]])})  # mean 4
    assert found["a"].tolist() == [0.25, 0.75] and found["b"].flatten().tolist() == [2.0, 1.0]
    scaled = over_mean({"a": torch.tensor([1e-9, 3e-9]), "b": torch.tensor([[8e-9], [4e-9]])})
    assert torch.allclose(scaled["b"], found["b"])


# ---------------------------------------------------------------- SLUG


def test_the_front_holds_what_nothing_beats_in_both():
    table = [
        Candidate("a", 1.0, 0.10),  # least aligned
        Candidate("b", 2.0, 0.20),
        Candidate("c", 1.5, 0.30),  # b is more important and less aligned
        Candidate("d", 5.0, 0.50),  # most important
        Candidate("e", 5.0, 0.60),  # d is as important, not more
        Candidate("f", 0.5, 0.10),  # a is as little aligned, not less
        Candidate("g", 4.9, 0.55),  # d beats it
    ]
    assert [c.name for c in front(table)] == ["a", "b", "d", "e", "f"]
    assert front(table[:1]) == table[:1]  # the first layer can be chosen


def test_candidates_by_hand():
    weights = {"x": torch.tensor([3.0, 4.0]), "dead": torch.ones(2), "no retain": torch.ones(1)}
    forget = {"x": torch.tensor([0.0, 2.0]), "dead": torch.zeros(2), "no retain": torch.ones(1)}
    retain = {"x": torch.tensor([3.0, -4.0]), "dead": torch.ones(2), "no retain": torch.zeros(1)}
    found = candidates(weights, forget, retain)
    assert [c.name for c in found] == ["x", "no retain"]
    assert [(c.importance, c.alignment) for c in found] == [pytest.approx((2 / 5, 0.8)), (1.0, 0.0)]


@pytest.mark.parametrize(
    "name, expected",
    [
        ("l.1.self_attn.k_proj.weight", [f"l.1.self_attn.{part}_proj.weight" for part in "qkv"]),
        ("l.1.mlp.fc2.weight", ["l.1.mlp.fc1.weight", "l.1.mlp.fc2.weight"]),
        ("l.1.self_attn.out_proj.weight", ["l.1.self_attn.out_proj.weight"]),
    ],
)
def test_tensors_that_work_together_are_edited_together(name, expected):
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.fc1", "mlp.fc2")
    known = [f"l.1.{part}.weight" for part in parts]
    assert together(name, [*known, "l.2.mlp.fc1.weight"]) == expected


def test_a_step_ascends_and_its_length_is_a_share_of_the_named_tensor():
    weights = {"q": torch.tensor([3.0, 4.0]), "k": torch.tensor([100.0])}
    forget = {"q": torch.tensor([0.0, -2.0]), "k": torch.tensor([6.0])}
    deltas = moved(["q", "k"], weights, forget, "q", 0.1).deltas  # r = 0.1 * 5 / 2
    assert deltas[Slice("q")].tolist() == [0.0, -0.5] and deltas[Slice("k")].tolist() == [1.5]


class Measured:
    """A tuning that forgets from one length to another, and remembers the lengths it was asked for."""

    target = 0.05

    def __init__(self, forgets, breaks=9e9):
        self.forgets, self.breaks, self.lengths = forgets, breaks, []

    def check(self, setting, patch):
        self.lengths.append(s := setting["length"])
        share = lambda value: SimpleNamespace(value=value)  # noqa: E731
        forget, retain = 0.0 if s >= self.forgets else 1.0, 1.0 if s < self.breaks else 0.5
        return SimpleNamespace(forget_accuracy=share(forget), retain_accuracy=share(retain))

    def tick(self, share):
        pass


@pytest.mark.parametrize(
    "forgets, lengths",
    [
        (0.05, [0.1, 0.05, 0.025, 0.0375, 0.04375]),  # it forgets at once: towards zero
        (0.3, [0.1, 0.2, 0.4, 0.3, 0.25, 0.275]),  # doubled until it does, then bisected
    ],
)
def test_a_clip_length_is_doubled_until_it_forgets_then_bisected_ten_times_in_all(forgets, lengths):
    tuning = Measured(forgets)
    search(tuning, {}, lambda s: Patch(), 0.1)
    assert tuning.lengths[: len(lengths)] == pytest.approx(lengths) and len(tuning.lengths) == 10


def test_a_pipeline_length_is_bisected_from_ten_times_the_first_and_every_state_leads_to_another():
    tuning = Measured(2.0, breaks=1.0)
    search(tuning, {}, lambda s: Patch(), 0.4, longest=4.0)
    assert tuning.lengths[:4] == pytest.approx([0.4, 2.2, 1.3, 1.75])  # too short, forgets, too short, too short
    assert len(set(tuning.lengths)) == 10


def test_a_gradient_is_the_mean_over_batches_and_starts_from_nothing(tuning, bench):
    found = mean_gradient(tuning, ["visual.proj"], "forget")["visual.proj"]
    again = mean_gradient(tuning, ["visual.proj"], "forget")["visual.proj"]
    each = [tuning.gradient(["visual.proj"], bench.scoring_terms(i)["forget"])["visual.proj"] for i in (1, 2, 3, 4)]
    assert torch.allclose(found, torch.stack(each).mean(0), atol=1e-7) and torch.equal(found, again)


def test_slug_edits_one_tensor_that_is_no_bias_position_or_embedding(tuning, monkeypatch):
    monkeypatch.setattr(slug_module, "LENGTHS", 2)
    slug(tuning)
    names = [trial.setting["tensor"] for trial in tuning.trials]
    assert names and not any(part in name for name in names for part in ("bias", "position", "embedding", "scale"))
    assert {tuning.adapter.tower_of(name) for name in names} == {"image", "text"}
    _, patch, _ = tuning.choose()
    assert len(patch.deltas) == 1


# ---------------------------------------------------------------- CLIPErase


def test_the_objective_is_its_three_terms_and_consistency_is_zero_on_the_frozen_model(tuning, bench, trained):
    pairs = Pairs(tuning)
    with torch.no_grad():
        retain, consistency = pairs.losses(1)
        assert consistency.item() == pytest.approx(0, abs=1e-4)
        rows = tuning.draw(len(pairs.captions), 16, "pairs/1")
        v, t = trained.embed_images(pairs.pixels[rows]), trained.embed_texts([pairs.captions[i] for i in rows])
        noise = Patch({Slice("visual.proj"): 0.3 * torch.randn(32, 32, generator=torch.Generator().manual_seed(0))})
        with noise.applied(trained.model):
            moved_v = trained.embed_images(pairs.pixels[rows])
            now = pairs.losses(1)
            whole = objective(tuning, pairs, 1)().item()
            cos = 1 - bench.scoring_terms(1)["forget"]().item()
    before, after = trained.scale * v @ t.T, trained.scale * moved_v @ t.T
    kl = lambda p, q, dim: (p.softmax(dim) * (p.log_softmax(dim) - q.log_softmax(dim))).sum(dim).mean()  # noqa: E731
    expected = kl(before, after, 1) + kl(before, after, 0)  # of each picture over captions, and the other way round
    assert now[1].item() == pytest.approx(expected.item(), rel=1e-3) and expected > 0.1
    assert WEIGHTS == (1.0, 3.0, 3.0)  # of retain, forget and consistency, as published
    assert whole == pytest.approx(WEIGHTS[0] * now[0].item() + WEIGHTS[1] * cos + WEIGHTS[2] * now[1].item(), rel=1e-4)
    captions = [pairs.captions[i] for i in rows]
    same = torch.tensor([[a == b for b in captions] for a in captions])
    assert retain.item() == pytest.approx(losses.contrastive(v, t, same, trained.scale).item(), rel=1e-4)


# ---------------------------------------------------------------- null space


def test_what_has_no_part_along_the_texts_is_exactly_as_it_was():
    weight = torch.arange(12.0).reshape(3, 4)  # features are rows of width 3 times it
    u = torch.eye(4)[:, 1:2]
    for gamma, left in ((1.0, 0.0), (0.25, 0.75)):
        after = weight + projected(weight, u, gamma)
        assert torch.equal(after[:, [0, 2, 3]], weight[:, [0, 2, 3]])
        assert torch.allclose(after[:, 1], left * weight[:, 1])


def test_projecting_by_hand_along_a_slanted_text():
    u = basis(torch.tensor([[3.0, 4.0]])).float()
    after = torch.tensor([[1.0, 0.0]]) + projected(torch.tensor([[1.0, 0.0]]), u, 1.0)
    assert after.flatten().tolist() == pytest.approx([1 - 0.36, -0.48])  # I - u u^T with u = (0.6, 0.8)


def test_the_basis_is_orthonormal_and_no_larger_than_what_the_texts_span():
    texts = torch.tensor([[1.0, 2.0, 2.0], [2.0, 4.0, 4.0], [0.0, 1.0, -1.0]])  # the second is twice the first
    u = basis(texts)
    assert u.shape == (3, 2) and torch.allclose(u.T @ u, torch.eye(2).double(), atol=1e-9)
    assert torch.allclose(u @ u.T @ texts.double().T, texts.double().T, atol=1e-9)


def test_retained_features_that_are_orthogonal_to_the_concept_stay_and_the_concept_goes(trained, task, tuning):
    with torch.no_grad():
        pixels = trained.pixels([e.image for e in task.retain.test])
        u = basis(trained.embed_texts(["a red", "red"])).float()
        before = trained.model.encode_image(pixels)
        patch = Patch({Slice("visual.proj"): projected(trained.model.visual.proj.detach(), u, 1.0)})
        with patch.applied(trained.model):
            after = trained.model.encode_image(pixels)
    apart = torch.linalg.svd(u.T)[2][u.shape[1] :]  # every direction orthogonal to the texts
    assert torch.allclose(after @ apart.T, before @ apart.T, atol=1e-5)
    assert (before @ u).abs().mean() > 0.1 and (after @ u).abs().max() < 1e-5


def test_a_tower_without_a_last_projection_is_refused_in_one_sentence(trained, tuning, monkeypatch):
    monkeypatch.setattr("razor.baselines.null_space._PROJECTIONS", {"visual.elsewhere": True})
    with pytest.raises(ModelError, match=r"^The image tower of 'tiny' has no last projection to edit; choose another"):
        null_space(tuning)


# ---------------------------------------------------------------- head gates


def test_importance_is_the_derivative_of_the_loss_by_the_gate(trained, tuning, bench):
    heads = trained.units(("head",), ("image", "text"))
    names = list(dict.fromkeys(unit.slices[-1].parameter for unit in heads))
    weights, loss = tuning.weights(names), bench.scoring_terms(1)["forget"]
    found = importance(heads, weights, tuning.gradient(names, loss))
    for number in (0, 5):
        values = []
        for share in (0.02, -0.02):  # both sides of an open gate
            nearly = Patch({where: share * -delta for where, delta in shut([heads[number]], weights).deltas.items()})
            with nearly.applied(trained.model), torch.no_grad():
                values.append(loss().item())
        assert found[number].item() == pytest.approx((values[0] - values[1]) / 0.04, rel=0.05, abs=1e-5)


def test_heads_whose_closing_forgets_and_costs_little_come_first():
    forget, retain = torch.tensor([-4.0, 3.0, 0.0, -4.0]), torch.tensor([0.0, 0.0, 0.0, -6.0])
    assert scores(forget, retain, 1.0).argsort(descending=True, stable=True).tolist() == [0, 2, 3, 1]
    assert scores(forget, retain, 0.0).argsort(descending=True, stable=True).tolist() == [0, 3, 2, 1]


def test_a_shut_gate_takes_away_exactly_what_the_head_adds():
    unit = Unit("image.0.head.1", "head", "image", 0, 1, (Slice("q", 0, 2, 4), Slice("out", 1, 2, 4)))
    weights = {"out": torch.arange(8.0).reshape(2, 4)}
    (where, delta), *rest = shut([unit], weights).deltas.items()
    assert where == Slice("out", 1, 2, 4) and not rest
    assert torch.equal(delta + where.view(weights["out"]), torch.zeros(2, 2))
