"""Which event calls which handler. Everything that runs a model shares one queue slot."""

import gradio as gr

from components.head_map import preview
from components.studio import Studio

# Nothing shows Gradio's own progress. Told where to (nowhere), it also spares the browser a copy of all that every
# component holds at each step of an event, which took a second of its time a click.
PRIVATE = {"api_visibility": "private", "show_progress": "hidden", "show_progress_on": []}
ONE_AT_A_TIME = {"concurrency_id": "model", "concurrency_limit": 1}  # one queue slot for all that runs a model
HEAVY = PRIVATE | ONE_AT_A_TIME


def wire(demo: gr.Blocks, studio: Studio) -> None:
    """Connect widgets to handlers, screen by screen."""
    page = studio.page
    shown = [page.compare.left, page.compare.right, page.compare.cards, page.compare.tiles, page.compare.own,
             page.compare.status, page.compare.answers, page.compare.refresh, *page.pictures.drawn(),
             *page.asks.drawn()]  # fmt: skip
    views = [*page.trust.blank(), *page.why.blank(), *page.drift.blank()]
    # Work that another target overtakes ends by blanking all of this, so all of it is among the outputs.
    family = [page.words.box, *page.examples.fitted(), page.model.judge_box,
              page.edit.towers, page.edit.forget_loss, page.drift.box, page.why.pixel_method]  # fmt: skip
    drawn = [*page.edit.drawn(), *shown, page.stack.list, *views, *family, *page.check.drawn(), *page.export.drawn()]
    _wire_examples(demo, studio, drawn)
    _wire_growth(studio, drawn)
    _wire_map(studio, drawn)
    _wire_insight(studio, drawn)
    _wire_pictures(studio, drawn)
    _wire_asking(studio, drawn)
    _wire_checks(studio, drawn)
    page.compare.refresh.click(studio.compare, [page.compare.left, page.compare.right], drawn, **HEAVY)
    page.compare.ask.click(studio.ask, [page.compare.files, page.compare.labels], shown, **HEAVY)
    guided = page.guide
    steps = [
        guided.box,
        guided.toggle,
        guided.steps,
        guided.text,
        guided.do,
        guided.next,
        page.tabs,
        page.examples.status,
    ]
    guided.toggle.click(studio.toggle_guide, None, steps, **PRIVATE)
    guided.steps.input(studio.guide_to, guided.steps, steps, **PRIVATE)
    guided.next.click(studio.guide_on, None, steps, **PRIVATE)
    guided.do.click(studio.guide_do, page.edit.settings(), [*steps, *drawn], **HEAVY)


def _wire_examples(demo: gr.Blocks, studio: Studio, drawn: list) -> None:
    page, examples = studio.page, studio.page.examples
    first = [examples.gallery, examples.status, examples.story, page.model.card, page.header]
    offer = [examples.offer, examples.offer_text, examples.token, examples.status]
    opened = demo.load(studio.open_page, [examples.target, page.model.name, examples.token], offer, **PRIVATE)
    shown = opened.then(studio.show_family, None, drawn, **HEAVY)
    taken = page.export
    linked = _taken_up(studio, drawn)
    link = "() => new URLSearchParams(location.search).get('recipe') || ''"
    shown.then(studio.follow_link, taken.link, linked, js=link, **HEAVY)
    taken.link.submit(studio.follow_link, taken.link, linked, **HEAVY)
    made = taken.make_link.click(studio.make_link, None, [taken.link, taken.bring_status], **PRIVATE)
    whole = "(link) => link.startsWith('?') ? location.origin + location.pathname + link : link"
    made.then(None, taken.link, taken.link, js=whole, **PRIVATE)
    demo.unload(studio.close)
    examples.take_back.click(studio.take_back, None, [*linked, examples.offer], **HEAVY)
    examples.discard.click(studio.discard, None, [examples.offer, examples.status], **PRIVATE)
    loaded = [*first, *drawn, page.model.judge]
    page.model.load.click(studio.choose_model, page.model.name, loaded, **HEAVY)
    for event in (page.model.use_judge.click, page.model.judge.submit):
        event(studio.choose_judge, page.model.judge, loaded, **HEAVY)
    for event in (examples.target.change, examples.use_bundled.click):
        event(studio.choose_target, examples.target, first + drawn, **PRIVATE)
    both = [examples.forget_files, examples.retain_files]
    for files in both:
        files.change(studio.read_own, both, [examples.captions, examples.status], **PRIVATE)
    own = [examples.concept, examples.labels, examples.own_anchor, examples.own_kind, examples.own_named]
    examples.use_own.click(studio.use_own, [*own, examples.captions], first + drawn, **HEAVY)
    examples.own_kind.input(
        studio.kind_chosen, [examples.own_kind, examples.own_anchor], examples.own_anchor, **PRIVATE
    )
    listed = [examples.labels, examples.status]
    examples.own_suggest.click(studio.suggest_beside, [examples.concept, examples.own_kind], listed, **HEAVY)
    words = page.words
    words.kind.input(studio.kind_chosen, [words.kind, words.anchor], words.anchor, **PRIVATE)
    suggested = [words.keep, words.anchor, examples.status]
    words.suggest.click(studio.suggest, [words.concept, words.kind], suggested, **HEAVY)
    said = [words.concept, words.kind, words.anchor, words.keep]
    words.use.click(studio.use_words, said, first + drawn, **HEAVY)
    words.stop.click(studio.stop, None, examples.status, queue=False, **PRIVATE)
    told = examples.story.click(studio.tell, page.edit.settings(), [*first, *drawn, page.tabs], **HEAVY)
    told.then(studio.choices, None, [page.trust.choices, page.why.example, page.trust.status], **PRIVATE)


def _taken_up(studio: Studio, drawn: list) -> list:
    """What changes where a run is taken up again, with its model and target."""
    page, examples = studio.page, studio.page.examples
    first = [examples.gallery, examples.status, examples.story, page.model.card, page.header]
    return [*first, *drawn, page.model.name, page.model.judge, examples.target, *page.edit.settings(), page.tabs]


def _wire_growth(studio: Studio, drawn: list) -> None:
    page, edit, trust, why = studio.page, studio.page.edit, studio.page.trust, studio.page.why
    for button, work in ((edit.score, studio.score), (edit.grow_one, studio.grow_one), (edit.grow, studio.grow),
                         (edit.replan, studio.replan)):  # fmt: skip
        done = button.click(work, edit.settings(), drawn, **HEAVY)
        done = _estimated(studio, done, drawn)
        done = done.then(studio.choices, None, [trust.choices, why.example, trust.status], **PRIVATE)
        done = done.then(studio.after_score, [trust.resample_auto, trust.alone_auto], drawn, **HEAVY)
        attribution = [why.map, why.attribute_status]
        done = done.then(studio.after_round, [why.attribute_auto, why.method], attribution, **HEAVY)
        _then_views(studio, done)
    for button, work in ((edit.undo, studio.undo), (edit.redo, studio.redo), (edit.reset, studio.reset)):
        _then_estimate(studio, button.click(work, None, drawn, **PRIVATE), drawn)
    _then_estimate(
        studio, edit.timeline.round_pick(studio.show_round, None, drawn, trigger_mode="multiple", **PRIVATE), drawn
    )
    _then_estimate(
        studio,
        edit.timeline.branch_change(studio.change_branch, None, drawn, trigger_mode="multiple", **PRIVATE),
        drawn,
    )
    edit.forget_loss.input(studio.choose_loss, edit.forget_loss, [edit.towers, edit.status], **PRIVATE)
    edit.measure.run.click(studio.measure, None, drawn, **HEAVY)
    stops = ((edit.stop, edit.status), (edit.measure.stop, edit.measure.status))
    for stop, status in (*stops, (page.examples.stop, page.examples.status)):
        stop.click(studio.stop, None, status, queue=False, **PRIVATE)


def _wire_map(studio: Studio, drawn: list) -> None:
    edit = studio.page.edit
    clicked = edit.map.units_change(
        studio.change_units,
        None,
        [edit.map, edit.estimate, edit.status],
        trigger_mode="multiple",
        queue=False,
        **PRIVATE,
    )
    _then_estimate(studio, clicked, drawn)
    unit = edit.looked_at()
    looked = edit.map.unit_focus(studio.look_at, None, unit, trigger_mode="always_last", **PRIVATE)
    looked = [looked, edit.table.select(studio.pick_row, None, [edit.map, *unit, edit.status], **PRIVATE)]
    looked.append(edit.scatter.point_pick(studio.pick_point, None, [edit.map, *unit, edit.status], **PRIVATE))
    why = studio.page.why
    for look in looked:
        explained = [why.card, why.explain_status]
        look.then(studio.after_look, why.explain_auto, explained, trigger_mode="always_last", **HEAVY)
    brushed = [edit.brushed, edit.put_in, edit.status]
    edit.scatter.points_select(studio.brush, None, brushed, trigger_mode="always_last", **PRIVATE)
    _then_estimate(studio, edit.put_in.click(studio.put_in, None, drawn, **PRIVATE), drawn)
    for slider, work in ((edit.strength, studio.dial), (edit.unit_strength, studio.dial_unit)):
        _then_estimate(studio, slider.release(work, [slider, edit.guard], drawn, **HEAVY), drawn)
    edit.map.tau_change(studio.brush_tau, None, edit.tau, trigger_mode="always_last", **PRIVATE)
    resting = [edit.table, edit.scatter, edit.price, *unit, edit.status]
    for slider, what in ((edit.alpha, "alpha"), (edit.tau, "tau")):
        preview(slider, what)
        moved = slider.change(
            studio.rescale, edit.settings(), [edit.map, edit.status], trigger_mode="always_last", **PRIVATE
        )
        moved.then(studio.rescaled, None, resting, trigger_mode="always_last", **PRIVATE)


def _wire_insight(studio: Studio, drawn: list) -> None:
    page, trust, why, drift, stack = (
        studio.page, studio.page.trust, studio.page.why, studio.page.drift, studio.page.stack
    )  # fmt: skip
    trust.resample.click(studio.resample, None, drawn, **HEAVY)
    trust.alone.click(studio.alone, None, [trust.agreement, trust.status, *page.edit.looked_at()], **HEAVY)
    why.attribute.click(studio.attribute, why.method, [why.map, why.attribute_status], **HEAVY)
    why.explain.click(studio.explain, None, [why.card, why.explain_status], **HEAVY)
    why.look.click(studio.look, [why.example, why.pixel_method], [why.pixels, why.look_status], **HEAVY)
    drift.run.click(studio.move, None, [drift.chart, drift.picked, drift.status], **HEAVY)
    drift.chart.point_pick(studio.pick_picture, None, [drift.picked, drift.status], **HEAVY)
    listed = [stack.list, stack.status]
    stack.push.click(studio.push, None, listed, **PRIVATE)
    stack.check.click(studio.check, None, listed, **HEAVY)
    again = [page.examples.gallery, page.examples.story]
    stack.list.stack_change(studio.change_stack, None, [*listed, *again, *drawn], **PRIVATE)


def _wire_pictures(studio: Studio, drawn: list) -> None:
    panel, compare = studio.page.pictures, studio.page.compare
    panel.draw.click(studio.draw_both, [compare.left, compare.right, *panel.asked()], drawn, **HEAVY)
    panel.draw_grid.click(studio.draw_grid, panel.grid(), drawn, **HEAVY)
    for stop, status in ((panel.stop, panel.status), (panel.stop_grid, panel.cost)):
        stop.click(studio.stop, None, status, queue=False, **PRIVATE)
    # What a person types is priced at once; the pace is measured only for who looks at grids.
    priced = {"fn": studio.grid_cost, "inputs": panel.grid(), "outputs": panel.cost, **PRIVATE}
    for widget in (panel.steps, panel.guidance, panel.side, panel.seed):
        widget.input(**priced, trigger_mode="always_last")
    typed = [text.input(**priced, trigger_mode="always_last") for text in (*panel.grid_values, panel.grid_prompt)]
    for menu, text in zip(panel.grid_axes, panel.grid_values, strict=True):
        typed.append(menu.input(studio.grid_values, menu, text, **PRIVATE).then(**priced))
    typed.append(panel.grid_box.expand(studio.grid_opened, [panel.cost, *panel.grid()], panel.cost, **PRIVATE))
    for event in typed:
        event.then(studio.grid_pace, panel.grid(), panel.cost, **HEAVY)
    panel.file.upload(studio.restore, panel.file, _taken_up(studio, drawn), **HEAVY)


def _wire_asking(studio: Studio, drawn: list) -> None:
    panel, compare = studio.page.asks, studio.page.compare
    sides = [compare.left, compare.right]
    panel.ask.click(studio.ask_both, [*sides, panel.groups, panel.count], drawn, **HEAVY)
    own = [panel.pictures, panel.questions, panel.rule]
    panel.ask_own.click(studio.ask_own_questions, [*sides, *own], drawn, **HEAVY)
    panel.stop.click(studio.stop, None, panel.status, queue=False, **PRIVATE)
    panel.carry.click(studio.carry, None, drawn, **HEAVY)


def _wire_checks(studio: Studio, drawn: list) -> None:
    panel, taken = studio.page.check, studio.page.export
    taken.run.click(studio.write_export, [taken.form, taken.rank, taken.redacted], taken.drawn(), **HEAVY)
    taken.report.click(studio.write_report, [taken.reason, taken.pictures], taken.drawn(), **HEAVY)
    brought = [taken.brought, taken.anyway, *studio.page.edit.settings()]
    _then_estimate(studio, taken.bring.click(studio.bring_in, brought, _taken_up(studio, drawn), **HEAVY), drawn)
    for stop, status in ((taken.stop, taken.status), (taken.stop_report, taken.report_status)):
        stop.click(studio.stop, None, status, queue=False, **PRIVATE)
    panel.run.click(studio.run_checks, [panel.attacks, *panel.limits], drawn, **HEAVY)
    panel.compare.click(studio.compare_methods, [panel.methods, panel.seconds], drawn, **HEAVY)
    picked, shown = panel.front.point_pick(studio.pick_method, None, panel.compare_status, **PRIVATE), panel.cases
    picked.then(studio.show_method, None, [shown, panel.compare_status], trigger_mode="always_last", **HEAVY)
    for stop, status in ((panel.stop, panel.status), (panel.stop_compare, panel.compare_status)):
        stop.click(studio.stop, None, status, queue=False, **PRIVATE)


def _then_estimate(studio: Studio, event, drawn: list) -> None:
    """After a change by hand: measure it, then run the views that are switched on.

    A change made while an earlier one is still measured is measured after it; Gradio's own way is to drop that event.
    """
    _then_views(studio, _estimated(studio, event, drawn))


def _estimated(studio: Studio, event, drawn: list):
    """The measuring; the unit's card comes by an event of its own, so quick that hardly a pick overtakes it."""
    looked_at = studio.page.edit.looked_at()
    event.then(studio.look_again, None, looked_at, trigger_mode="always_last", **PRIVATE)
    return event.then(studio.estimate, None, drawn, trigger_mode="always_last", **HEAVY)


def _then_views(studio: Studio, event) -> None:
    why, drift = studio.page.why, studio.page.drift
    event.then(
        studio.after_change,
        [why.look_auto, why.example, why.pixel_method, drift.auto],
        [why.pixels, why.look_status, drift.chart, drift.picked, drift.status],
        trigger_mode="always_last",
        **HEAVY,
    )
