"""The fifth screen of the real app, in one visit: files other programs load, a report that prints, the way back."""

import re
import zipfile

import open_clip
import pytest
import torch

from razor import models
from razor.patches import Patch

pytestmark = pytest.mark.browser
LONG = 240_000  # milliseconds; generous, since the machine may be busy
REASON = "The licence of <b>these</b> pictures was withdrawn."


def note(page, selector, text):
    page.locator(f"{selector} .status-line", has_text=text).first.wait_for(timeout=LONG)
    return page.locator(selector).inner_text()


def units(page):
    """How many units the map shows as edited."""
    return int(page.locator("#head-map .head-map").get_attribute("data-units"))


def choose(page, form):
    page.get_by_role("radio", name=form).check()


def saved(page, button, folder):
    """What a button hands out, kept in a folder."""
    with page.expect_download(timeout=LONG) as download:
        page.click(button)
    place = folder / download.value.suggested_filename
    download.value.save_as(place)
    return place


@pytest.fixture(scope="module")
def page(visitor):
    """One visitor who has forgotten cat and is on the fifth screen."""
    page = visitor
    page.get_by_role("tab", name="2 Map & edit").click()
    page.click("#grow")
    note(page, "#edit-status", "The target is met.")
    page.wait_for_function("+document.querySelector('#head-map .head-map')?.dataset.units > 0", timeout=LONG)
    page.get_by_role("tab", name="5 Take away").click()
    return page


@pytest.fixture(scope="module")
def patch_file(page, tmp_path_factory):
    choose(page, "Patch, for this library")
    page.click("#export-run")
    note(page, "#export-status", "Loaded again, it is the edited model bit for bit.")
    page.locator("#export-file", has_text="mini-clip-without-cat.safetensors").wait_for(timeout=LONG)
    return saved(page, "#export-file", tmp_path_factory.mktemp("taken"))


def test_patch_and_whole_model_are_the_same_edit_to_the_programs_that_load_them(page, patch_file, tmp_path):
    choose(page, "The whole model, as a zipped folder")
    page.click("#export-run")
    page.locator("#export-file", has_text="mini-clip-without-cat.zip").wait_for(timeout=LONG)
    zipfile.ZipFile(saved(page, "#export-file", tmp_path)).extractall(tmp_path / "whole")
    whole, _ = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'whole'}")
    plain = models.load("mini-clip").model
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    with Patch.load(patch_file).applied(plain):
        edited = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    found = whole.state_dict()
    assert found.keys() == edited.keys()
    assert all(torch.equal(found[name], edited[name]) for name in edited)
    assert any(not torch.equal(before[name], edited[name]) for name in edited)


def test_the_report_asks_for_nothing_from_outside_and_prints(page, chromium, tmp_path):
    page.fill("#report-reason textarea", REASON)
    page.click("#report-run")
    note(page, "#report-status", "opens in any browser")
    file = saved(page, "#report-file", tmp_path)
    assert "Edited to forget 'cat'" in saved(page, "#card-file", tmp_path).read_text("utf-8")
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    reader, asked, troubles = context.new_page(), [], []
    reader.route("**/*", lambda to: to.continue_() if to.request.url.startswith("file:") else to.abort())
    reader.on("request", lambda request: asked.append(request.url))
    reader.on("console", lambda said: troubles.append(said.text))
    reader.on("pageerror", lambda error: troubles.append(str(error)))
    reader.goto(file.as_uri())
    reader.wait_for_load_state("networkidle")
    assert reader.locator("h1").inner_text() == "Cat in mini-clip" and REASON in reader.locator("body").inner_text()
    assert reader.locator("img").evaluate_all("all => all.length > 9 && all.every((one) => one.naturalWidth > 0)")
    printed = reader.pdf(format="A4")
    context.close()
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()] and not troubles
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 8
    assert 50_000 < len(printed) < 1_000_000


def bring(page, file):
    """Choose a file to bring back in the place of any before it."""
    field = page.locator("#bring-file")
    if not field.is_visible():
        page.locator("#bring-back button.label-wrap").click()
    if field.get_by_role("button", name="Clear").count():
        field.get_by_role("button", name="Clear").click()
    field.locator("input[type=file]").set_input_files(str(file))
    field.locator("tr.file", has_text=file.stem[:8]).wait_for(timeout=LONG)  # listed, not just on its way
    page.click("#bring-run")


def test_a_broken_file_is_one_sentence_and_the_edit_stays(page, tmp_path):
    before = units(page)
    (tmp_path / "torn.safetensors").write_bytes(b"nothing of the kind")
    bring(page, tmp_path / "torn.safetensors")
    page.locator("#bring-status .status-line[data-tone=problem]").wait_for(timeout=LONG)
    said = page.locator("#bring-status").inner_text()
    assert re.fullmatch(r"\s*torn\.safetensors cannot be read \(.*\); give a patch or a LoRA in .*\.\s*", said)
    assert units(page) == before


def test_a_patch_brought_back_is_on_the_map_and_forgets_again(page, patch_file):
    members = Patch.load(patch_file).recipe["edit_set"]["members"]
    page.get_by_role("tab", name="2 Map & edit").click()
    page.click("#reset")
    note(page, "#edit-status", "Back at the unedited model.")
    page.wait_for_function("document.querySelector('#head-map .head-map').dataset.units === '0'", timeout=LONG)
    page.get_by_role("tab", name="5 Take away").click()
    bring(page, patch_file)
    said = note(page, "#edit-status", "mini-clip-without-cat.safetensors was brought in")
    assert "from 100.0% to 0.0%" in said and "Undo returns to the edit before." in said
    shown = "document.querySelector('#head-map .head-map').dataset"
    page.wait_for_function(f"{shown}.ready === 'true' && {shown}.units === '{len(members)}'", timeout=LONG)
    assert page.locator("#head-map").is_visible()  # the page goes there by itself
    page.locator("#tiles .tile-after", has_text="0.0%").first.wait_for(timeout=LONG)
