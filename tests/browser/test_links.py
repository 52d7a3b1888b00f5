"""A link opens the page at what repeats a run: another model's target and settings, from one address."""

import pytest

from razor import recipe

pytestmark = pytest.mark.browser
LONG = 60_000


def made(model, target, **config):
    from razor import models, sources
    from razor.config import RazorConfig

    adapter = models.load(model)
    task, _ = sources.resolve(target)
    entry = recipe.unedited(adapter, task)
    return {**entry, "config": {**RazorConfig().to_json(), **config}, "edit_set": {"members": []}, "rounds": []}


def test_a_link_sets_target_and_settings_and_can_be_made_from_what_it_gave(new_page):
    page = new_page(f"?recipe={recipe.to_link(made('mini-clip', 'style:neon', alpha=2.5))}")
    page.locator("#edit-status .status-line", has_text="Grow to target repeats it").wait_for(timeout=LONG)
    assert page.locator("#alpha input[type=number]").input_value() == "2.5"
    page.get_by_role("tab", name="1 Model & examples").click()
    page.locator("#story", has_text="Forget neon").wait_for(timeout=LONG)
    page.get_by_role("tab", name="2 Map & edit").click()
    page.click("#score")
    page.locator("#edit-status .status-line", has_text="Scored.").wait_for(timeout=LONG)
    page.get_by_role("tab", name="5 Take away").click()
    page.locator("#bring-back button.label-wrap").click()
    page.click("#make-link")
    field = page.locator("#recipe-link textarea, #recipe-link input").first
    page.wait_for_function(
        "document.querySelector('#recipe-link textarea, #recipe-link input').value.startsWith('http')"
    )
    found = recipe.from_link(field.input_value())
    assert found["config"]["alpha"] == 2.5 and found["task"]["origin"]["forget"] == "style:neon"


def test_a_broken_link_is_one_sentence_and_the_page_works_on(new_page):
    page = new_page("?recipe=AAAA")
    page.get_by_role("tab", name="5 Take away").click()
    page.locator("#bring-back button.label-wrap").click()
    page.locator("#bring-status .status-line", has_text="holds no recipe").wait_for(timeout=LONG)
