"""Screen 3 for a model that draws, without a browser: handlers called as Gradio calls them, on a tiny pipeline."""

import re
from dataclasses import replace
from html import escape
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
import tiny_drawing
from PIL import Image
from tiny_drawing import CONFIG, Eyes, colour_task, last

import app
from components import compare_panel, picture_panel, picture_reading
from components.desk import STALE_PAIRS
from components.drawing import NAME_ONE, NO_JUDGE, NOTHING_EDITED
from components.session import Sessions
from razor import recipe
from razor.errors import InputError, ModelError
from razor.growth import Growth
from razor.minicanvas import tasks
from razor.minicanvas.dataset import parse_target
from razor.picture_files import PictureInfo, Spec, png_bytes, read_png
from razor.picture_grid import GridAxis, GridPlan
from razor.pictures import GROUPS, DrawSettings, Prompt

SETTINGS = (5, 3, 2.0, 16)  # seed, steps, guidance, side
ALL = [*GROUPS]


def draw(studio, request, prompts="", groups=(), count=8, settings=SETTINGS, sides=compare_panel.SIDES):
    return studio.draw_both(request, *sides, prompts, list(groups), count, *settings)


def pairs_in(value):
    return [pair for group in value["groups"] for pair in group["pairs"]]


def file_of(url):
    return Path(unquote(url.removeprefix("gradio_api/file=")))


def grid(prompt="a cat", x=("seed", "1..2"), y=("strength", "0, 1"), z=("", ""), own="", settings=SETTINGS):
    return (prompt, *x, *y, *z, own, *settings)


# Which panel is shown -------------------------------------------------------------------------------------------------


def test_a_model_that_draws_gets_the_picture_panel_and_a_clip_the_cards(studio, adapter, trained):
    page = studio.page
    for model, draws in ((adapter, True), (trained, False)):
        shown = studio.comparing(model)
        assert shown[page.pictures.box]["visible"] is draws
        assert shown[page.compare.answers]["visible"] is not draws
        assert shown[page.compare.refresh]["visible"] is not draws
    shown = studio.comparing(adapter)
    assert (shown[page.pictures.steps], shown[page.pictures.guidance]) == (3, 2.0)
    assert shown[page.pictures.side]["value"] == 16


def test_an_opened_page_follows_the_family_of_its_model(studio, visitor):
    shown = last(studio.show_family(visitor("a")))
    assert shown[studio.page.pictures.box]["visible"] is True


# Pairs ----------------------------------------------------------------------------------------------------------------


def test_pairs_stream_with_sketches_and_end_as_files_with_a_finding(studio, edited):
    panel, request = studio.page.pictures, edited("a")
    updates = list(draw(studio, request, "my own words", ["target", "other"]))
    values = [u[panel.pairs] for u in updates if panel.pairs in u]
    assert values[0]["progress"]["done"] == 0 and values[0]["progress"]["total"] == 2 * len(pairs_in(values[0]))
    sketched = [
        url for v in values for p in pairs_in(v) for url in (p["before"], p["after"]) if url and url[:5] == "data:"
    ]
    assert sketched
    done = values[-1]
    assert done["progress"] is None and done["groups"][0]["title"] == "Your own prompts"
    assert all(file_of(p[side]).is_file() for p in pairs_in(done) for side in ("before", "after"))
    assert all(p["verdict"] in ("suppressed", "still drawn", "kept", "changed", "") for p in pairs_in(done))
    assert done["finding"].endswith("Read by a test's eyes.")
    assert "pictures drawn in" in updates[-1][panel.status]
    own = next(p for p in pairs_in(done) if p["prompt"] == "my own words")
    assert own["seed"] == "5"


def test_two_visitors_draw_into_folders_of_their_own(studio, edited):
    panel, folders = studio.page.pictures, []
    for name in ("a", "b"):
        done = last(draw(studio, edited(name), "a cat"))
        folders.append(file_of(pairs_in(done[panel.pairs])[0]["before"]).parent)
    assert folders[0] != folders[1]
    studio.sessions.get("a").forget_files()
    assert not folders[0].exists() and folders[1].exists()


def test_a_second_edit_draws_only_its_own_side(studio, edited, adapter, monkeypatch):
    request, session = edited("a"), studio.sessions.get("a")
    last(draw(studio, request, "", ["target"]))
    calls, paint = [], adapter.draw
    monkeypatch.setattr(adapter, "draw", lambda prompts, *a, **k: calls.append(prompts) or paint(prompts, *a, **k))
    session.growth.act("in", [session.growth.units[1].name])
    said = last(draw(studio, request, "", ["target"]))[studio.page.pictures.status]
    assert len(calls) == 1 and re.search(r"2 pictures drawn in .*, 2 known already", said)


def test_the_pairs_are_said_to_be_old_once_the_edit_has_changed_and_new_when_it_is_back(studio, edited):
    panel, request, session = studio.page.pictures, edited("a"), studio.sessions.get("a")
    assert studio.staleness(session) == {}  # nothing was drawn yet
    assert last(draw(studio, request, "", ["target"]))[panel.stale] == ""
    session.growth.act("in", [session.growth.units[1].name])
    assert STALE_PAIRS in studio.staleness(session)[panel.stale]
    session.growth.undo()
    assert studio.staleness(session)[panel.stale] == ""


def test_stop_keeps_what_was_finished_and_says_so(studio, edited, adapter, monkeypatch):
    panel, request, session = studio.page.pictures, edited("a"), studio.sessions.get("a")
    paint = adapter.draw

    def stopping(*args, **more):
        found = paint(*args, **more)
        session.stop.set()
        return found

    monkeypatch.setattr(adapter, "draw", stopping)
    done = last(draw(studio, request, "", ["target"]))
    assert "Stopped: 2 of 4 pictures are drawn and kept." in done[panel.status]
    assert all(p["before"] and not p["after"] for p in pairs_in(done[panel.pairs]))
    assert done[panel.pairs]["progress"] is None


def test_an_error_in_the_middle_keeps_what_was_finished_and_drops_sketches(studio, edited, adapter, monkeypatch):
    panel, request, calls, paint = studio.page.pictures, edited("a"), [], adapter.draw

    def failing(*args, **more):
        calls.append(args)
        found = paint(*args, **more)
        if len(calls) == 2:
            raise ModelError("Memory ran out while drawing.")
        return found

    monkeypatch.setattr(adapter, "draw", failing)
    with pytest.warns(UserWarning, match="Memory ran out while drawing"):
        done = last(draw(studio, request, "", ["target"]))
    assert "Memory ran out while drawing." in done[panel.status] and done[panel.pairs]["progress"] is None
    assert all(file_of(p["before"]).is_file() and p["after"] is None for p in pairs_in(done[panel.pairs]))


def test_another_target_chosen_meanwhile_leaves_nothing_of_the_old_pairs(studio, edited):
    panel, request, session = studio.page.pictures, edited("a"), studio.sessions.get("a")
    updates = draw(studio, request, "", ["target"])
    next(updates)
    next(updates)
    session.start_over()
    assert last(updates)[panel.pairs]["groups"] == []


def test_closing_the_page_in_the_middle_lets_the_model_go_as_it_was(studio, edited, adapter, weights_of, same_weights):
    before = weights_of(adapter.model)
    updates = draw(studio, edited("a"), "", ALL)
    for _ in range(3):
        next(updates)
    updates.close()
    studio.sessions.get("a").forget_files()
    done = last(draw(studio, edited("b"), "a cat"))  # waits for the model
    assert pairs_in(done[studio.page.pictures.pairs])
    assert same_weights(adapter.model, before)


def test_notes_name_a_cut_prompt_an_empty_edit_and_a_missing_judge(studio, visitor, adapter, monkeypatch):
    panel, request = studio.page.pictures, visitor("a")
    monkeypatch.setattr(adapter, "judge", None)
    long = "a very long prompt with a tail"
    done = last(draw(studio, request, long))
    assert adapter.cut(long) and adapter.cut(long) in done[panel.notes]
    assert NOTHING_EDITED in done[panel.notes] and NO_JUDGE in done[panel.notes] and NAME_ONE in done[panel.notes]
    (pair,) = pairs_in(done[panel.pairs])
    assert pair["verdict"] == pair["saw_before"] == "" and done[panel.pairs]["finding"] == ""
    assert pair["before"] == pair["after"]  # no edit: one file for both sides


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "There is nothing to draw: write a prompt of your own, or tick a group"),
        ({"groups": ["best"]}, "no prompts named 'best'"),
        ({"groups": ALL, "count": 10_000}, "10000 pairs cannot be suggested; choose 8, 16, 32"),
        ({"prompts": "x" * 3000}, "3,000 characters"),
        ({"prompts": "a", "settings": (0, None, 2.0, 16)}, "The number of steps is missing"),
        ({"prompts": "a", "settings": (0, 2.5, 2.0, 16)}, "The number of steps cannot be 2.5"),
        ({"prompts": "a", "settings": (0, 500, 2.0, 16)}, "500 steps cannot be drawn"),
        ({"prompts": "a", "settings": (0, 3, 99.0, 16)}, "Guidance is 99.0"),
        ({"prompts": "a", "settings": (0, 3, 2.0, 17)}, "A side of 17 pixels"),
        ({"prompts": "a", "settings": (-1, 3, 2.0, 16)}, "The seed cannot be -1"),
        ({"prompts": "a", "sides": ("original", "branch:gone")}, "no branch 'gone' any more"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence_in_the_status_line(studio, visitor, more, said):
    with pytest.warns(UserWarning, match=re.escape(escape(said))):
        done = last(draw(studio, visitor("a"), **more))
    assert escape(said) in done[studio.page.pictures.status]


def test_a_clip_cannot_draw_and_says_where_to_get_a_model_that_does(trained, tmp_path):
    _, studio = app.build_demo(lambda name: trained, sessions=Sessions(tmp_path))
    with pytest.warns(UserWarning, match="draws no pictures"):
        last(draw(studio, SimpleNamespace(session_hash="a"), "a cat"))


def test_the_story_and_the_guide_end_on_the_suggested_pairs(studio, edited, adapter):
    request, session = edited("a"), studio.sessions.get("a")
    done = last(studio.compare(request, *compare_panel.SIDES))
    groups = [group["title"] for group in done[studio.page.pictures.pairs]["groups"]]
    assert groups == ["Target: red", "In other words", "Nearest neighbours", "Others of its kind"]
    assert studio.answers(session, session.growth) == {}  # no click on the map draws pictures


def test_the_story_ends_by_drawing_on_the_compare_screen(studio, visitor, adapter, monkeypatch):
    monkeypatch.setattr(adapter, "judge", None)  # who knows that a random model draws nothing
    page, grow = studio.page, (1.0, 0.0, 1.0, 1, 0.02, 1, 0.05, ["cross"], ["heads"], None)
    updates = list(studio.tell(visitor("a"), *grow))
    opened = next(i for i, u in enumerate(updates) if page.tabs in u)
    assert updates[opened][page.tabs].selected == "compare" and page.compare.cards not in updates[opened]
    drawn = [u[page.pictures.pairs] for u in updates[opened:] if page.pictures.pairs in u]
    assert len(drawn) > 2 and drawn[-1]["progress"] is None and all(p["after"] for p in pairs_in(drawn[-1]))
    assert not any(page.pictures.pairs in u and u[page.pictures.pairs]["groups"] for u in updates[:opened])


# The grid -------------------------------------------------------------------------------------------------------------


def test_a_grid_is_priced_while_a_person_types_and_drawn_cell_by_cell(studio, edited):
    panel, request = studio.page.pictures, edited("a")
    asked = grid(z=("guidance", "1, 2"))
    assert "8 pictures, 36 denoiser passes." in studio.grid_cost(request, *asked)
    said = last(studio.grid_pace(request, *asked))[panel.cost]
    assert re.search(r"36 denoiser passes: (about|less)", said)
    assert list(studio.grid_pace(request, *asked)) == [{"__type__": "update"}]  # known from now on
    updates = list(studio.draw_grid(request, *asked))
    sheets = [u[panel.sheet] for u in updates if panel.sheet in u]
    assert sheets[0]["progress"] == {"done": 0, "total": 8, "note": ""} and sheets[-1]["progress"] is None
    sheet = sheets[-1]["sheet"]
    assert sheet["title"] == "a cat" and sheet["x"]["values"] == ["1", "2"]
    assert sheet["y"] == {"name": "strength of the edit", "values": ["0%", "100%"]}
    assert sheet["note"] == "3 steps. What a picture shows is read by a test's eyes."
    urls = [cell["image"] for table in sheet["cells"] for row in table for cell in row]
    assert all(file_of(url).is_file() for url in urls) and len(set(urls)) == 8
    info = read_png(file_of(sheet["cells"][1][1][0]["image"]).read_bytes())
    assert (info.spec.seed, info.spec.guidance, info.shown, info.recipe["strength"]) == (1, 2.0, "edited", 1.0)
    assert read_png(file_of(sheet["cells"][0][0][0]["image"]).read_bytes()).shown == "edited at 0%"


def test_a_grid_too_large_or_badly_written_is_refused_quietly_while_typing_and_aloud_on_the_button(studio, edited):
    request = edited("a")
    for asked, said in (
        (grid(x=("seed", "1..201")), "201 x 2 = 402 pictures are too many"),
        (grid(x=("seed", "some")), "some"),
        (grid(settings=(0, 3, 2.0, None)), "The size is missing"),
    ):
        assert said in studio.grid_cost(request, *asked)
        with pytest.warns(UserWarning, match=said):
            last(studio.draw_grid(request, *asked))


def test_before_anything_is_grown_a_grid_changes_only_how_it_is_drawn(studio, visitor):
    request, panel = visitor("a"), studio.page.pictures
    assert "Nothing was grown yet, so the strength cannot change" in studio.grid_cost(request, *grid())
    done = last(studio.draw_grid(request, *grid(y=("", ""), prompt="")))
    assert done[panel.sheet]["sheet"]["title"] == "a red thing e"  # the first suggested prompt


def test_a_grid_names_what_is_cut_of_its_prompt(studio, edited, adapter):
    long = "a very long prompt with a tail"
    done = last(studio.draw_grid(edited("a"), *grid(prompt=long, x=("seed", "1"), y=("", ""))))
    assert f"does not read \u201c{adapter.cut(long)}\u201d." in done[studio.page.pictures.cost]


def test_a_grid_of_several_prompts_says_which_one_it_draws(studio, edited):
    request, panel = edited("a"), studio.page.pictures
    asked = grid(prompt="a cat\n\na dog", x=("seed", "1"), y=("", ""))
    said = "A grid draws one prompt, so the other lines are left out: \u201ca cat\u201d is drawn."
    assert said in studio.grid_cost(request, *asked)
    assert said in last(studio.draw_grid(request, *asked))[panel.cost]
    assert "left out" not in studio.grid_cost(request, *grid(prompt="a cat", y=("", "")))


def test_values_are_offered_for_the_axis_chosen(studio, edited):
    request, session = edited("a"), studio.sessions.get("a")
    session.growth.history.branch_from("Half", 0)
    assert studio.grid_values("branch", request) == "Main, Half"
    assert studio.grid_values("guidance", request) == "1, 4, 8"
    assert studio.grid_values("", request) == ""


# Restoring ------------------------------------------------------------------------------------------------------------


def test_a_picture_restores_what_drew_it_and_says_that_nothing_differs(studio, edited, tmp_path):
    panel, request = studio.page.pictures, edited("a")
    drawn = pairs_in(last(draw(studio, request, "", ["target"]))[panel.pairs])[0]
    copy = tmp_path / "mine.png"
    copy.write_bytes(file_of(drawn["after"]).read_bytes())
    done = last(studio.restore(request, str(copy)))
    assert "its edit is the edit as it stands here" in done[panel.restored]
    assert (done[panel.prompts], str(done[panel.seed])) == (drawn["prompt"], drawn["seed"])
    assert done[panel.groups]["value"] == []
    again = [done[w] for w in (panel.seed, panel.steps, panel.guidance, panel.side)]
    (pair,) = pairs_in(last(draw(studio, request, done[panel.prompts], [], 8, again))[panel.pairs])
    assert (pair["before"], pair["after"]) == (drawn["before"], drawn["after"])
    assert str(copy) in studio.sessions.get("a").uploads


@pytest.mark.parametrize("drawn_at", ["a cell of the grid", "the dial"])
def test_a_picture_of_the_edit_at_another_strength_is_known_as_that(studio, edited, tmp_path, drawn_at):
    panel, request, session = studio.page.pictures, edited("a"), studio.sessions.get("a")
    if drawn_at == "the dial":
        session.growth.set_strength(0.5)
        url = pairs_in(last(draw(studio, request, "a cat"))[panel.pairs])[0]["after"]
        session.growth.set_strength(1.0)
    else:
        done = last(studio.draw_grid(request, *grid(x=("seed", "1"), y=("strength", "0.5"))))
        url = done[panel.sheet]["sheet"]["cells"][0][0][0]["image"]
    copy = tmp_path / "weak.png"
    copy.write_bytes(file_of(url).read_bytes())
    said = last(studio.restore(request, str(copy)))[panel.restored]
    assert "its edit is the edit as it stands at a strength of 50%" in said and "none there is here" not in said
    session.growth.act("in", [session.growth.units[1].name])
    assert "none there is here" in last(studio.restore(request, str(copy)))[panel.restored]


def test_a_foreign_picture_is_one_sentence(studio, visitor, tmp_path):
    path = tmp_path / "holiday.png"
    Image.new("RGB", (16, 16)).save(path)
    with pytest.warns(UserWarning, match=r"holiday\.png does not say how it was drawn"):
        done = last(studio.restore(visitor("a"), str(path)))
    assert "holiday.png does not say" in done[studio.page.pictures.restored]


def test_what_differs_from_the_picture_is_said_exactly(studio, visitor, edited, adapter):
    task, fingerprint = colour_task(), adapter.fingerprint()
    session = studio.sessions.get(edited("a").session_hash)
    mine = studio._recipe(session, recipe.unedited(adapter, task), None)
    spec = Spec("a cat", 1, 3, 2.0, 16)
    info = PictureInfo(spec, "tiny-sd", fingerprint, "edited", "ab" * 8, mine)
    say = lambda info: picture_reading.restored_text(info, adapter, fingerprint, task, {"cd" * 8: "here"})  # noqa: E731
    assert "the edit that drew it (1 unit, 0 rounds) is none there is here" in say(info)[0]
    back = "give this file to Bring one back on screen 5: it sets what repeats it."
    assert say(info)[0].endswith(f"To grow its edit again, {back}") and "screen 5" not in say(replace(info, edit=""))[0]
    neon = mine | {"task": mine["task"] | {"concept": "neon", "origin": {"forget": "style:neon"}}}
    there = replace(info, model="mini-sd", recipe=neon)
    assert say(there)[0].endswith(f"To grow its edit again, choose mini-sd and style:neon on screen 1, then {back}")
    assert "The model differs: other (00000000) drew it" in say(replace(info, model="other", fingerprint="0" * 16))[0]
    assert "does not say which weights" in say(replace(info, fingerprint=""))[0]
    assert "carries no task" in say(replace(info, recipe={}))[0]
    other = mine | {"task": mine["task"] | {"concept": "<b>blue</b>"}}
    assert "The task differs: its model forgets <b>blue</b>, here red." in say(replace(info, recipe=other))[0]
    sets = mine["task"]["examples"] | {"forget": {"test": 7}}
    moved = mine | {"task": mine["task"] | {"examples": sets}}
    assert (
        "differs in its pictures (forget gradient, forget search, forget test sets)"
        in say(replace(info, recipe=moved))[0]
    )
    assert say(replace(info, edit=""))[1] == "ready"
    odd = mine | {"rounds": 7, "edit_set": [1]}
    assert "the edit that drew it is none there is here" in say(replace(info, recipe=odd))[0]


@pytest.fixture
def drawn_elsewhere(studio, visitor, adapter, tmp_path, monkeypatch):
    """Pictures of another visitor's edit and of the unedited model beside it, for a target of the bundled world."""
    task = replace(colour_task(), origin={"forget": "style:neon", "retain": "minicanvas"})
    other = replace(task, concept="cat", origin={"forget": "object:cat", "retain": "minicanvas"})
    monkeypatch.setattr(adapter, "of_world", True)
    monkeypatch.setattr(tasks, "task", lambda target: task if target.name == "neon" else other)
    request, session = visitor("there", task), studio.sessions.get("there")
    session.growth = Growth(adapter, task, CONFIG)
    session.growth.scores()
    session.growth.act("in", [session.growth.units[0].name])
    pair = pairs_in(last(draw(studio, request, "a cat"))[studio.page.pictures.pairs])[0]
    files = {}
    for side in ("before", "after"):
        files[side] = tmp_path / f"{side}.png"
        files[side].write_bytes(file_of(pair[side]).read_bytes())
    return files


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_picture_sets_the_model_and_target_it_was_drawn_with(studio, visitor, adapter, drawn_elsewhere, side):
    request, session, page = visitor("a"), studio.sessions.get("a"), studio.page
    session.task = None
    done = last(studio.restore(request, str(drawn_elsewhere[side])))
    assert (session.target, done[page.examples.target], done[page.model.name]) == (*["style:neon"] * 2, "tiny-sd")
    assert done[page.pictures.prompts] == "a cat" and page.tabs not in done
    said = done[page.pictures.restored]
    assert "tiny-sd and style:neon with them" in said
    if side == "before":
        assert said.endswith("It shows the unedited model: Draw both sides repeats the picture.</p>")
    else:
        assert done[page.edit.rounds] == CONFIG.rounds
        assert "On screen 2: Score does again what was done by hand" in said
    done = last(studio.restore(request, str(drawn_elsewhere["before"])))
    assert "Model and task are the same as here" in done[page.pictures.restored]


def test_a_picture_brought_back_on_the_fifth_screen_sets_them_too(studio, visitor, drawn_elsewhere):
    request, session, page = visitor("a"), studio.sessions.get("a"), studio.page
    session.task = None
    done = last(studio.bring_in(request, str(drawn_elsewhere["after"]), False, *tiny_drawing.SETTINGS))
    assert done[page.examples.target] == session.target == "style:neon" and done[page.tabs].selected == "edit"
    assert "Score does again what was done by hand" in done[page.export.bring_status]


@pytest.mark.parametrize("busy", ["a growth", "own pictures", "a model that is not here", "other weights"])
def test_a_picture_takes_nothing_away_and_loads_nothing_from_elsewhere(
    studio, visitor, adapter, drawn_elsewhere, monkeypatch, busy
):
    request, session, page = visitor("a"), studio.sessions.get("a"), studio.page
    session.task = replace(colour_task(), concept="kite") if busy == "own pictures" else None
    if busy == "a growth":
        session.growth = Growth(adapter, tasks.task(parse_target("object:cat")), CONFIG)
    if busy == "a model that is not here":
        monkeypatch.setattr(session, "model", "tiny-sd, otherwise named")
    if busy == "other weights":
        monkeypatch.setattr(adapter, "fingerprint", lambda: "0" * 16)
    before = session.growth, session.task, session.target, session.model
    done = last(studio.restore(request, str(drawn_elsewhere["after"])))
    assert (session.growth, session.task, session.target, session.model) == before and page.examples.target not in done
    assert "choose tiny-sd and style:neon on screen 1" in done[page.pictures.restored]
    assert done[page.pictures.prompts] == "a cat"


def test_a_picture_of_a_task_from_words_says_how_that_is_made_again(adapter):
    entry = recipe.task_entry(colour_task()) | {"concept": "neon", "origin": {"forget": "drawn from the words 'neon'"}}
    info = PictureInfo(Spec("a cat", 1, 3, 2.0, 16), "sd", "0" * 16, "edited", "ab" * 8, {"task": entry})
    said, _ = picture_reading.restored_text(info, adapter, adapter.fingerprint(), colour_task(), {})
    assert "choose sd and let it draw neon from words alone on screen 1, then give this file to Bring one back" in said


def test_a_restored_picture_of_another_program_never_reaches_the_page_as_html(studio, visitor, tmp_path):
    info = PictureInfo(Spec("a cat", 1, 3, 2.0, 16), "<img src=x>", "0" * 16, "edited", "", {})
    path = tmp_path / "x.png"
    path.write_bytes(png_bytes(Image.new("RGB", (16, 16)), info))
    done = last(studio.restore(visitor("a"), str(path)))
    assert "&lt;img src=x&gt;" in done[studio.page.pictures.restored]


# Words ----------------------------------------------------------------------------------------------------------------


def rows_of(*verdicts):
    """A row for each (group, seen before, seen after)."""
    made = []
    for i, (group, before, after) in enumerate(verdicts):
        labels = {} if group == "own" else {"colour": "red" if group == "target" else "blue"}
        row = picture_reading.Row(Prompt(f"p{i}", group, f"{group}/{i}", labels), Spec(f"p{i}", i, 3, 2.0, 16))
        row.saw = [{"colour": before} if before else None, {"colour": after} if after else None]
        made.append(row)
    return made


def finding(*verdicts, names=("original", "edited"), original=True):
    return picture_reading.finding(rows_of(*verdicts), colour_task(), names, judge=Eyes(), original=original)


def test_the_finding_counts_what_was_drawn_and_names_its_judge():
    gone, there, kept = ("target", "red", "blue"), ("target", "red", "red"), ("other", "blue", "blue")
    assert finding(gone, gone, there, kept, kept) == (
        "Red is suppressed in 2 of 3 pictures; 2 of 2 others keep what they show. Read by a test's eyes."
    )
    assert finding(gone, ("other", "blue", "green")) == (
        "Red is suppressed in 1 of 1 picture; 0 of 1 other keeps what it shows. Read by a test's eyes."
    )
    assert finding(("target", "blue", "blue")) == "1 prompt did not draw red on either side. Read by a test's eyes."
    assert finding(gone, there, names=("Half", "edited"), original=False) == (
        "Half draws red 2 times and edited draws it 1 time. Read by a test's eyes."
    )
    assert finding(("target", "red", None)) == ""


def test_the_worst_pairs_come_first_once_all_are_drawn():
    rows = rows_of(("other", "blue", "blue"), ("other", "blue", "green"))
    ids = lambda progress: [p["id"] for p in pairs_in(  # noqa: E731
        picture_reading.pairs_shown(rows, colour_task(), ("a", "b"), judge=Eyes(), progress=progress)
    )]  # fmt: skip
    assert ids({"done": 1, "total": 4}) == ["other/0", "other/1"] and ids(None) == ["other/1", "other/0"]


def test_costs_and_times_are_said_in_words():
    plan = GridPlan("a cat", DrawSettings(1, 20, 4.0, 64), GridAxis("seed", (1, 2)))
    assert picture_reading.cost_text(plan, None) == "2 pictures, 80 denoiser passes."
    assert picture_reading.cost_text(plan, 0.2) == "2 pictures, 80 denoiser passes: less than a second."
    assert picture_reading.cost_text(plan, 12.3) == "2 pictures, 80 denoiser passes: about 12 s."
    assert picture_reading.cost_text(plan, 600) == "2 pictures, 80 denoiser passes: about 10 minutes."
    assert picture_reading.done_text(4, 0, 4, 3.2, False) == "4 pictures drawn in 3 s."
    assert picture_reading.done_text(0, 4, 4, 0.1, False) == "All pictures were known already."


def test_settings_that_are_no_numbers_are_refused():
    for wrong in (True, "4", float("nan"), None, [1]):
        with pytest.raises(InputError, match="The guidance is missing"):
            picture_panel.settings_from(1, 20, wrong, 64)
    assert picture_panel.settings_from(1.0, 20.0, 4, 64) == DrawSettings(1, 20, 4.0, 64)


def test_numbers_come_from_the_page_as_they_were_typed_so_that_one_sentence_says_what_is_wrong(studio):
    panel = studio.page.pictures
    for widget, wrong in ((panel.seed, -1), (panel.steps, 0), (panel.steps, 2.5), (panel.guidance, -1)):
        assert widget.preprocess(wrong) == wrong
    with pytest.raises(InputError, match=r"^The number of steps cannot be 2\.5; give a whole number from 0\.$"):
        picture_panel.settings_from(1, 2.5, 4, 64)
