"""The page for models that answer in words: questions on both sides, a person's own, and what is refused."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_vlms
from PIL import Image

import app
from components import answer_panel, asking
from components.desk import STALE
from components.guide import STEPS
from components.session import Sessions
from razor import models, recipe
from razor.adapters.vlm import VlmAdapter
from razor.config import RazorConfig
from razor.errors import ModelError
from razor.growth import Growth

SIDES = ("original", "now")
EVERY = ["target", "paraphrase", "check", "neighbour", "other", "neutral"]


@pytest.fixture(scope="module")
def speaker():
    """A LLaVA of random weights. Shared: leave it as found."""
    return VlmAdapter(*tiny_vlms.tiny("llava", 0), name="tiny-vlm")


@pytest.fixture(scope="module")
def speaking_page(speaker):
    return app.build_demo(lambda name: speaker, model="tiny-vlm")[1]


@pytest.fixture
def studio(speaking_page, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    monkeypatch.setattr(speaking_page, "sessions", Sessions(tmp_path / "saved"))
    return speaking_page


@pytest.fixture
def visitor(studio, make_task):
    """name -> a request of that visitor, who has pictures of colours."""

    def enter(name):
        session = studio.sessions.get(name)
        session.model, session.task = "tiny-vlm", make_task(each=4)
        return SimpleNamespace(session_hash=name)

    return enter


@pytest.fixture
def edited(studio, visitor, speaker):
    """The same, with a unit put in by hand."""

    def enter(name):
        request, session = visitor(name), studio.sessions.get(name)
        session.growth = Growth(speaker, session.task, RazorConfig(batch=4))
        session.growth.scores()
        session.growth.act("in", [session.growth.units[0].name])
        return request

    return enter


@pytest.fixture
def files(tmp_path):
    """Two pictures as a browser uploads them, each in a folder of its own."""
    paths = []
    for name in ("red.png", "blue.png"):
        path = tmp_path / name.removesuffix(".png") / name
        path.parent.mkdir()
        Image.new("RGB", (48, 48), name.removesuffix(".png")).save(path)
        paths.append(str(path))
    return paths


def last(updates):
    """The last value every widget was given."""
    final = {}
    for update in updates:
        final |= update
    return final


def said(update):
    return update["value"] if isinstance(update, dict) and "value" in update else update


def table(tmp_path, text):
    path = tmp_path / "table" / "mine.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


def test_every_suggested_group_is_answered_on_both_sides(studio, edited):
    final = last(studio.ask_both(edited("a"), *SIDES, EVERY, 3))
    groups = final[studio.page.asks.cards]["groups"]
    assert [group["title"] for group in groups][:3] == ["Target", "Paraphrase", "Yes or no"]
    cards = [card for group in groups for card in group["answers"]]
    assert all(card["before"] is not None and card["after"] is not None and card["tokens"] for card in cards)
    assert any(token["before"] != token["after"] for card in cards for token in card["tokens"])


def test_questions_appear_before_their_answers(studio, visitor):
    shown = [update[studio.page.asks.cards] for update in studio.ask_both(visitor("a"), *SIDES, ["target"], 12)
             if studio.page.asks.cards in update]  # fmt: skip
    assert shown[0]["progress"]["done"] == 0 and shown[0]["groups"][0]["answers"][0]["before"] is None
    assert shown[-1]["progress"] is None


def test_without_an_edit_both_sides_answer_alike_and_that_is_said(studio, visitor):
    final = last(studio.ask_both(visitor("a"), *SIDES, EVERY, 3))
    assert "Nothing is edited yet" in final[studio.page.asks.status]
    cards = [card for group in final[studio.page.asks.cards]["groups"] for card in group["answers"]]
    assert all(card["before"] == card["after"] for card in cards)


def test_answers_of_an_older_edit_are_said_to_be_old(studio, edited):
    request = edited("a")
    last(studio.ask_both(request, *SIDES, ["target"], 3))
    session = studio.sessions.get("a")
    assert not studio.staleness(session)[studio.page.asks.stale]
    session.growth.act("in", [session.growth.units[1].name])
    assert STALE in studio.staleness(session)[studio.page.asks.stale]


def test_the_answers_can_be_taken_away_and_go_with_the_visitor(studio, edited):
    final = last(studio.ask_both(edited("a"), *SIDES, ["target", "neutral"], 3))
    path = Path(said(final[studio.page.asks.file]))
    rows = list(csv.DictReader(path.open()))
    assert {row["group"] for row in rows} == {"target", "neutral"} and "answer edited" in rows[0]
    studio.sessions.get("a").forget_files()
    assert not path.exists()


def test_own_questions_are_asked_about_every_picture(studio, edited, files):
    final = last(studio.ask_own_questions(edited("a"), *SIDES, files, "What is this?\n\nIs it red?", ""))
    (group,) = said(final[studio.page.asks.own])["groups"]
    assert [card["question"] for card in group["answers"]] == ["What is this?", "Is it red?"] * 2


def test_a_table_brings_its_own_questions_and_is_scored(studio, visitor, files, tmp_path):
    rows = "image,question,answer\nred.png,Is it red?,yes\nblue.png,Is it red?,no\ngreen.png,Is it red?,no\n"
    final = last(studio.ask_own_questions(visitor("a"), *SIDES, [*files, table(tmp_path, rows)], "", "mme"))
    (group,) = said(final[studio.page.asks.own])["groups"]
    assert len(group["answers"]) == 2
    status = final[studio.page.asks.own_status]
    assert "By the rule of MME: original accuracy" in status and "n = 2" in status
    assert "Row 3: green.png is named in the table but is not beside it." in status


@pytest.mark.parametrize(
    "name, typed, rule, sentence",
    [
        ([], "What is this?", "", "There is no picture to ask about; add one"),
        (["red.png"], " \n", "", "There is no question; write one"),
        (["red.png"], "What is this?", "gqa", "&#x27;What is this?&#x27; has no right answer in the table"),
        (["red.png"], "w" * 20_000, "", "shorten it by"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(studio, visitor, files, name, typed, rule, sentence):
    chosen = [path for path in files if Path(path).name in name]
    with pytest.warns(UserWarning):
        final = last(studio.ask_own_questions(visitor("a"), *SIDES, chosen, typed, rule))
    assert sentence in final[studio.page.asks.own_status]


def test_one_question_too_long_is_told_before_any_is_answered(studio, visitor, files):
    typed = "\n".join([*["What is this?"] * 5, "w" * 2000])
    with pytest.warns(UserWarning):
        updates = list(studio.ask_own_questions(visitor("a"), *SIDES, files, typed, ""))
    assert "shorten it by" in last(updates)[studio.page.asks.own_status]
    assert not any(studio.page.asks.own in update for update in updates)


def test_what_goes_wrong_midway_leaves_what_was_answered_and_no_progress(studio, visitor, files, monkeypatch):
    answer_both, done = asking.answer_both, []

    def fails(*args, **options):
        done.append(1)
        if len(done) == 2:
            raise ModelError("Memory ran out.")
        return answer_both(*args, **options)

    monkeypatch.setattr(asking, "answer_both", fails)
    with pytest.warns(UserWarning):
        final = last(studio.ask_own_questions(visitor("a"), *SIDES, files, "\n".join(map(str, range(6))), ""))
    shown = said(final[studio.page.asks.own])
    assert "Memory ran out." in final[studio.page.asks.own_status] and shown["progress"] is None
    assert [card["after"] is not None for card in shown["groups"][0]["answers"]] == [True] * asking.TOGETHER


def test_two_tables_are_refused(tmp_path):
    paths = [table(tmp_path, "image,question\n"), str(tmp_path / "b.jsonl")]
    with pytest.raises(answer_panel.InputError, match="are both tables; give one at a time"):
        answer_panel.own_questions(paths, "")


def test_stopping_keeps_what_was_answered(studio, visitor, speaker, same_weights, weights_of):
    before, request = weights_of(speaker.model), visitor("a")
    updates = []
    for update in studio.ask_both(request, *SIDES, EVERY, 12):
        updates.append(update)
        if (shown := update.get(studio.page.asks.cards)) and shown["progress"] and shown["progress"]["done"]:
            studio.sessions.get("a").stop.set()
    final = last(updates)
    assert "Stopped before all questions were answered" in final[studio.page.asks.status]
    cards = [card for group in final[studio.page.asks.cards]["groups"] for card in group["answers"]]
    assert cards and all(card["after"] is not None for card in cards)
    assert final[studio.page.asks.cards]["progress"] is None and same_weights(speaker.model, before)


def test_a_model_that_answers_shows_its_own_panel(studio, speaker):
    shown, page = studio.comparing(speaker), studio.page
    visible = {widget: update["visible"] for widget, update in shown.items() if "visible" in update}
    assert visible[page.asks.box] and visible[page.examples.own_kind] and visible[page.why.pixel_method]
    hidden = (page.pictures.box, page.compare.answers, page.compare.refresh, page.words.box, page.drift.box)
    assert not any(visible[widget] for widget in hidden)


def test_the_map_names_every_tower_and_shared_heads(studio, visitor):
    drawn = last(studio.score(visitor("a"), 1.0, 0.0, 1.0, 1, 0.02, 1, 0.05, ["image", "language"], ["heads"], None))
    towers = {tower["title"]: tower for tower in drawn[studio.page.edit.map]["value"]["towers"]}
    assert [*towers] == ["Image tower", "Projector", "Language model"]
    assert any(column.startswith("kv ") for column in towers["Language model"]["columns"])


def test_the_forget_loss_is_chosen_with_its_towers_and_comes_back_with_a_recipe(studio, visitor, speaker, tmp_path):
    request, edit, session = visitor("a"), studio.page.edit, studio.sessions.get("a")
    offered = studio.comparing(speaker)
    assert offered[edit.forget_loss]["visible"] and offered[edit.forget_loss]["value"] == "answer"
    assert offered[edit.towers]["value"] == ["language"]
    assert last(studio.choose_loss(request, "alignment"))[edit.towers]["value"] == ["image"]
    settings = (1.0, 0.0, 1.0, 1, 0.02, 1, 0.05, ["image"], ["heads"])
    last(studio.score(request, *settings, "answer"))
    growth, phi = session.growth, session.growth.scores()
    assert growth.config.forget_loss is None  # the usual one
    last(studio.score(request, *settings, "alignment"))
    assert session.growth is growth and growth.forget_loss == growth.bench.forget_loss == "alignment"
    assert [s.phi for s in growth.scores()] != [s.phi for s in phi]
    (tmp_path / "r.json").write_text(json.dumps(recipe.recipe(growth)), "utf-8")
    last(studio.score(request, *settings, "answer"))
    assert [s.phi for s in growth.scores()] == pytest.approx([s.phi for s in phi])
    end = last(studio.bring_in(request, str(tmp_path / "r.json"), False, *settings, "answer"))
    assert end[edit.forget_loss] == "alignment" and end[edit.towers] == ["image"]
    assert "no setting" not in end[studio.page.export.bring_status]
    assert growth.forget_loss == "alignment"


@pytest.mark.parametrize("tower", ["image", "language"])
def test_the_card_of_a_head_shows_what_it_looks_at_while_asked(studio, edited, tower):
    request, session = edited("a"), studio.sessions.get("a")
    heads = (unit for unit in session.growth.every.values() if unit.kind == "head" and unit.tower == tower)
    session.focus = next(heads).name
    card = last(studio.explain(request))[studio.page.why.card]
    assert card.count("<img") == 4 and "Where it looks in them" in card
    assert ("Its attention in What is this?" in card) == (tower == "language")


def test_where_a_name_is_seen_is_shown_before_and_after(studio, edited):
    final = last(studio.look(edited("a"), "forget/0", "hiding squares"))
    shown = final[studio.page.why.pixels]
    assert "Before the edit" in shown and "After the edit" in shown and shown.count("log p") >= 2
    assert not final[studio.page.why.look_status]


def test_an_edit_of_the_clip_it_sees_through_is_offered_and_carried(tmp_path, weights_of, same_weights):
    studio = app.build_demo(models.load, sessions=Sessions(tmp_path))[1]
    request, session, panel = SimpleNamespace(session_hash="a"), studio.sessions.get("a"), studio.page.asks
    session.growth = Growth(models.load("mini-clip"), studio.task_of(session), RazorConfig(batch=16))
    session.growth.scores()
    session.growth.act("in", ["image.4.head.0"])
    final = last(studio.choose_model(request, "mini-vlm"))
    assert final[panel.offer]["visible"] and "1 unit to forget cat" in final[panel.offer_text]
    before = weights_of(models.load("mini-vlm").model)
    final = last(studio.carry(request))
    assert session.stack.names == ("cat",) and session.stack.concepts[0].units == ("image.4.head.0",)
    cards = [card for group in final[panel.cards]["groups"] for card in group["answers"]]
    assert any(token["before"] != token["after"] for card in cards for token in card["tokens"])
    assert "were carried over" in final[panel.status] and not final[panel.offer]["visible"]
    assert same_weights(models.load("mini-vlm").model, before)


def test_the_guide_tells_each_family_what_is_compared():
    (words,) = [step.words for step in STEPS if step.title == "Compare"]
    assert "a CLIP names the same pictures" in words and "a model that answers is asked the same questions" in words


def test_neighbours_of_ones_own_pictures_are_asked_about_once_they_are_known(studio, edited):
    request, session = edited("a"), studio.sessions.get("a")
    session.task = session.growth.task = replace(session.task, neighbours=())
    session.growth.bench.neighbours = ("green",)
    final = last(studio.ask_both(request, *SIDES, ["neighbour"], 3))
    assert [group["title"] for group in final[studio.page.asks.cards]["groups"]] == ["Nearest neighbours"]
