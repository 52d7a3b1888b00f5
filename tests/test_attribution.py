"""Gates are exact ablations, integrated gradients add up, and nothing is left on the model."""

import pytest
import torch
from tiny_adapters import fresh, make_task, shared

from razor.adapters import diffusion
from razor.attribution import (
    AGAINST,
    FOR,
    explain_head,
    head_gates,
    overlay,
    pixel_attribution,
)
from razor.errors import InputError, ModelError
from razor.patches import Patch
from razor.step import edited, evaluate


@pytest.fixture(scope="module")
def bench(trained, task):
    return trained.bench(task)


def named(adapter, name):
    return next(u for u in adapter.units(("head", "mlp", "layer")) if u.name == name)


def noise(adapter, name, scale=0.3):
    """Random deltas on one unit."""
    parameters = dict(adapter.model.named_parameters())
    generator = torch.Generator().manual_seed(0)
    return Patch(
        {
            s: scale * torch.randn(s.view(parameters[s.parameter]).shape, generator=generator)
            for s in named(adapter, name).slices
        }
    )


def without(adapter, unit):
    """The edit that zeroes a head's output columns."""
    where = unit.slices[-1]
    return Patch({where: -where.view(dict(adapter.model.named_parameters())[where.parameter]).detach().clone()})


def score_of(adapter, bench, patch=Patch()):
    with edited(adapter, bench, patch), torch.no_grad():
        return bench.concept_score(range(4)).item()


def test_concept_score_is_the_mean_cosine_of_pictures_and_concept(trained, task, bench):
    v = trained.embed_images(trained.pixels([e.image for e in task.forget.search[:4]]))
    assert score_of(trained, bench) == pytest.approx((v @ trained.class_embeddings(task.axes[0])[0]).mean().item())


# ---------------------------------------------------------------- gates


@pytest.mark.parametrize("patched", [False, True])
def test_ablation_equals_zeroing_the_heads_output_columns(trained, bench, patched):
    patch = noise(trained, "image.0.head.1") if patched else Patch()
    units = trained.units(("head",))
    found = head_gates(trained, bench, units, method="ablation", patch=patch, pictures=4)
    rows = [0, 2, 5, 7]  # four of the ten forget pictures, evenly spread
    for unit in units:
        with edited(trained, bench, patch), torch.no_grad():
            full = bench.concept_score(rows).item()
            with without(trained, unit).applied(trained.model):
                off = bench.concept_score(rows).item()
        assert found.values[unit.name] == pytest.approx(full - off, abs=1e-6)
        assert found.full == pytest.approx(full, abs=1e-6)
    assert found.error is None and len(found.values) == 8


def test_ablation_of_a_pipelines_heads_equals_zeroing_their_output_columns():
    adapter = shared("sd")
    bench = adapter.bench(make_task())
    bench.evaluate("search", ())
    units = adapter.units(("head",), ("text", "cross"))
    found = head_gates(adapter, bench, units, method="ablation", pictures=2)
    assert found.full == pytest.approx(1, abs=1e-4)  # all of the concept remains
    assert list(found.values) == [unit.name for unit in units] and max(map(abs, found.values.values())) > 1e-3
    for unit in units:
        with torch.no_grad(), without(adapter, unit).applied(adapter.model):
            off = bench.concept_score(range(2)).item()
        assert found.values[unit.name] == pytest.approx(found.full - off, abs=1e-4)


@pytest.mark.parametrize("kind", ["sd", "sd3"])
def test_gates_of_a_denoiser_whose_blocks_run_again_have_their_gradients(kind, monkeypatch):
    plain = fresh(kind)
    monkeypatch.setattr(diffusion, "SMALL", plain.side - 1)
    large = diffusion.DiffusionAdapter(fresh(kind).pipeline, name="large")
    units, found, at_once = plain.units(("head",)), [], []
    for adapter in (plain, large):
        bench = adapter.bench(make_task())
        bench.evaluate("search", ())
        score, rows = bench.concept_score, []
        bench.concept_score = lambda chosen, score=score, rows=rows: rows.append(list(chosen)) or score(chosen)
        found.append(head_gates(adapter, bench, units, pictures=2, steps=20))
        at_once.append({len(chosen) for chosen in rows})
    assert at_once == [{2}, {1}]  # one graph at a time
    assert large.denoiser.is_gradient_checkpointing and not plain.denoiser.is_gradient_checkpointing
    assert found[1].values == pytest.approx(found[0].values, abs=1e-4)


def test_memory_that_runs_out_says_which_method_needs_less(trained, bench, monkeypatch, weights_of, same_weights):
    before = weights_of(trained.model)
    monkeypatch.setattr(bench, "concept_score", lambda rows: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
    with pytest.raises(ModelError, match=r"^Memory ran out while attributing to heads\. Choose ablation, "):
        head_gates(trained, bench, trained.units())
    assert same_weights(trained.model, before)


def test_integrated_gradients_add_up_to_the_score_between_shut_and_open(trained, bench):
    found = head_gates(trained, bench, trained.units(), pictures=4)
    assert abs(found.full - found.closed) > 0.05
    assert sum(found.values.values()) == pytest.approx(found.full - found.closed + found.error)
    assert abs(found.error) <= 0.02 * abs(found.full - found.closed)


def test_shut_gates_are_all_heads_zeroed(trained, bench):
    found = head_gates(trained, bench, trained.units(), method="ablation", pictures=100)
    off = sum((without(trained, unit) for unit in trained.units(("head",))), Patch())
    with edited(trained, bench, off), torch.no_grad():
        assert found.closed == pytest.approx(bench.concept_score(range(10)).item(), abs=1e-6)


def test_towers_of_different_width_share_a_table_without_mixing(make_clip, wrap, task):
    adapter = wrap(make_clip(vision={"head_width": 8}))  # four heads a layer beside two
    bench = adapter.bench(task)
    found = head_gates(adapter, bench, adapter.units(), method="ablation", pictures=2)
    assert [sum(name.startswith(tower) for name in found.values) for tower in ("image", "text")] == [8, 4]
    with torch.no_grad(), without(adapter, named(adapter, "text.0.head.1")).applied(adapter.model):
        off = bench.concept_score([0, 5]).item()
    assert found.values["text.0.head.1"] == pytest.approx(found.full - off, abs=1e-6)


def test_some_heads_alone_get_the_same_values(trained, bench):
    units = [named(trained, name) for name in ("text.1.head.1", "image.1.head.0")]
    few, all_ = (head_gates(trained, bench, u, method="ablation", pictures=3) for u in (units, trained.units()))
    assert list(few.values) == ["text.1.head.1", "image.1.head.0"]
    assert few.values == pytest.approx({name: all_.values[name] for name in few.values}, abs=1e-6)


@pytest.mark.parametrize("method", ["integrated_gradients", "ablation"])
def test_gates_leave_the_model_as_found_also_when_stopped(trained, bench, weights_of, same_weights, method):
    before, log = weights_of(trained.model), []
    parameters = list(trained.model.parameters())
    options = {"method": method, "patch": noise(trained, "image.0.head.0"), "pictures": 2}
    ran = head_gates(trained, bench, trained.units(), progress=lambda *now: log.append(now), **options)
    assert ran is not None and log[-1][0] == log[-1][1] and log == sorted(log)
    for after in (0, 1, 3):
        answers = iter([False] * after + [True] * 99)
        assert head_gates(trained, bench, trained.units(), stop=lambda a=answers: next(a), **options) is None
        assert same_weights(trained.model, before)
    assert all(a is b for a, b in zip(parameters, trained.model.parameters(), strict=True))
    assert not any(p.requires_grad or p.grad is not None for p in trained.model.parameters())


def test_what_cannot_be_gated_is_refused(trained, bench):
    with pytest.raises(InputError, match=r"^No attribution method 'magic'; choose integrated_gradients or ablation"):
        head_gates(trained, bench, trained.units(), method="magic")
    with pytest.raises(InputError, match="only heads have gates"):
        head_gates(trained, bench, trained.units(("mlp",)))
    with pytest.raises(InputError, match=r"^No attribution method 'magic'; choose integrated_gradients or occlusion"):
        pixel_attribution(trained, bench, bench.task.forget.search[0].image, patch=Patch(), method="magic")


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion"])
def test_pixels_before_and_after_share_a_scale_and_differ_by_the_edit(
    trained, task, bench, method, weights_of, same_weights
):
    picture, weights = task.forget.search[0].image, weights_of(trained.model)
    still = pixel_attribution(trained, bench, picture, patch=Patch(), method=method)
    moved = pixel_attribution(trained, bench, picture, patch=noise(trained, "image.1.head.0"), method=method)
    assert still.before.shape == still.after.shape == (32, 32)
    assert torch.equal(still.before, still.after) and torch.equal(still.before, moved.before)
    assert still.similarity_before == still.similarity_after == moved.similarity_before != moved.similarity_after
    assert not torch.equal(moved.before, moved.after)
    assert moved.scale <= max(moved.before.abs().max(), moved.after.abs().max())
    assert same_weights(trained.model, weights)


def test_pixels_add_up_to_the_similarity_above_an_empty_picture(trained, task, bench):
    found = pixel_attribution(trained, bench, task.forget.search[0].image, patch=Patch())
    with torch.no_grad():
        empty = bench.similarity(torch.zeros(1, 3, 32, 32)).item()
    assert found.before.sum().item() == pytest.approx(found.similarity_before - empty, abs=0.05)


def test_hiding_the_square_costs_more_than_hiding_the_rest(trained, task, bench):
    example = next(e for e in task.forget.search if e.labels["side"] == "left")
    found = pixel_attribution(trained, bench, example.image, patch=Patch(), method="occlusion").before
    assert found[:, :16].sum() > found[:, 16:].sum()


def test_overlay_is_clear_at_zero_orange_for_and_purple_against(picture):
    base = picture(0).resize((64, 64))
    map_ = torch.zeros(32, 32)
    assert overlay(base, map_, 1.0).tobytes() == base.tobytes()
    map_[4:12, 4:12], map_[20:28, 20:28] = 5.0, -5.0
    shown = overlay(base, map_, 1.0)
    for place, colour in (((16, 16), FOR), ((48, 48), AGAINST)):
        blend = [round(0.85 * c + 0.15 * b) for c, b in zip(colour, base.getpixel(place), strict=True)]
        assert shown.getpixel(place) == pytest.approx(blend, abs=2)
    assert shown.getpixel((48, 16)) == base.getpixel((48, 16))


def test_overlay_of_a_wide_picture_covers_its_centre(picture):
    assert overlay(picture(0).resize((90, 40)), torch.zeros(32, 32), 1.0).size == (32, 32)


# ---------------------------------------------------------------- one unit


@pytest.mark.parametrize("name", ["image.1.head.0", "image.0.mlp", "image.1.layer"])
def test_write_of_an_image_unit_equals_taking_embeddings_apart(trained, task, bench, name, weights_of, same_weights):
    before, unit = weights_of(trained.model), named(trained, name)
    card = explain_head(trained, bench, unit)
    parts = [u for u in trained.units() if u.tower == "image" and u.layer == unit.layer]
    off = sum((without(trained, u) for u in (parts if unit.kind == "layer" else [unit])), Patch())
    sides = {side: getattr(task, side).search for side in ("forget", "retain")}
    with_it = {side: trained.embed_images(trained.pixels([e.image for e in es])) for side, es in sides.items()}
    with off.applied(trained.model):
        gone = {side: trained.embed_images(trained.pixels([e.image for e in es])) for side, es in sides.items()}
    write = {side: with_it[side] - gone[side] for side in sides}
    assert [p.norm for p in card.pictures] == pytest.approx(
        torch.cat(list(write.values())).norm(dim=1).sort(descending=True).values[:6].tolist(), abs=1e-5
    )
    assert all(p.norm == pytest.approx(write[p.side][p.index].norm().item(), abs=1e-5) for p in card.pictures)
    assert card.shift == pytest.approx(write["forget"].mean(0).norm().item(), abs=1e-5)
    assert card.prompts == () and len(card.pictures) == 6
    assert (card.before, card.after) == tuple(evaluate(trained, bench, p, "search") for p in (Patch(), off))
    assert same_weights(trained.model, before)


def test_write_of_a_text_unit_is_about_the_concepts_prompts(trained, task, bench):
    unit = named(trained, "text.0.head.1")
    patch = noise(trained, "text.1.head.0")
    card = explain_head(trained, bench, unit, patch=patch)
    prompts = [p for axis in task.axes for texts in axis.prompts.values() for p in texts]
    with edited(trained, bench, patch):
        t = trained.embed_texts(prompts)
        words = [trained.class_embeddings(axis) for axis in task.axes]
        with without(trained, unit).applied(trained.model):
            write = t - trained.embed_texts(prompts)
    norms = dict(zip(prompts, write.norm(dim=1).tolist(), strict=True))
    assert [p.prompt for p in card.prompts] == sorted(norms, key=norms.get, reverse=True)[:6]
    assert all(p.norm == pytest.approx(norms[p.prompt], abs=1e-6) and p.name in p.prompt for p in card.prompts)
    mean = write[[prompts.index("a red"), prompts.index("red")]].mean(0)
    cosines = {}
    for axis, t in zip(task.axes, words, strict=True):
        centred = t - t.mean(0)
        cosines |= {
            n: torch.cosine_similarity(c, mean, dim=0).item() for n, c in zip(axis.classes, centred, strict=True)
        }
    order = sorted(cosines, key=cosines.get)
    assert [w.name for w in card.nearest] == order[::-1][:5] and [w.name for w in card.farthest] == order[:3]
    assert card.nearest[0].cosine == pytest.approx(max(cosines.values()), abs=1e-5)
    assert card.pictures == ()


def test_a_unit_is_explained_on_top_of_the_patch(trained, bench):
    unit, patch = named(trained, "image.1.head.0"), noise(trained, "image.0.mlp")
    card = explain_head(trained, bench, unit, patch=patch)
    assert card.before == evaluate(trained, bench, patch, "search") != evaluate(trained, bench, Patch(), "search")


def test_a_unit_that_writes_nothing_moves_nothing(trained, bench):
    unit = named(trained, "image.1.head.0")
    card = explain_head(trained, bench, unit, patch=without(trained, unit))
    assert card.shift == 0 and {p.norm for p in card.pictures} == {0.0} and card.before == card.after
