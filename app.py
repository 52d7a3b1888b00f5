"""RAZOR Studio: place the panels, wire the events, launch. Start it with `python -m razor app`."""

import os
from collections.abc import Callable

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # no outside request; must come before gradio

import gradio as gr

from components import compare_panel, edit_panel, examples_panel, model_panel, theme
from components.studio import NAME, PURPOSE, Page, Studio
from razor import models
from razor.adapters.clip import ClipAdapter
from razor.errors import InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def build_demo(
    load: Callable[[str], ClipAdapter] = models.load, *, model: str = "mini-clip"
) -> tuple[gr.Blocks, Studio]:
    """The page and its handlers; tests pass a `load` of their own."""
    with gr.Blocks(title=NAME, fill_width=True, delete_cache=(3600, 86400)) as demo:
        page = place(model)
        studio = Studio(page, load)
        wire(demo, studio)
    demo.queue(api_open=False, max_size=16, default_concurrency_limit=4)
    return demo, studio


def place(model: str) -> Page:
    """Lay out all panels."""
    header = gr.HTML(
        theme.header_html(NAME, PURPOSE, f"{model}, bundled" if model in models.BUNDLED else model),
        apply_default_css=False,
    )
    with gr.Tabs(elem_id="screens") as tabs:
        with gr.Tab("1  Model & examples", id="model"), gr.Row():
            with gr.Column(scale=2, min_width=300):
                target, story, stop, status = examples_panel.build_target()
                model_widgets = model_panel.build(model)
            with gr.Column(scale=5, min_width=520):
                gallery = examples_panel.gallery()
                own = examples_panel.build_own()
        with gr.Tab("2  Map & edit", id="edit"):
            edit = edit_panel.build()
        with gr.Tab("3  Compare", id="compare"):
            compare = compare_panel.build()
    examples = examples_panel.ExamplesPanel(target, story, stop, status, gallery, *own)
    return Page(header, tabs, model_widgets, examples, edit, compare)


def wire(demo: gr.Blocks, studio: Studio) -> None:
    """Connect widgets to handlers. Everything that runs a model shares one queue slot."""
    page = studio.page
    examples, edit, compare = page.examples, page.edit, page.compare
    drawn = [edit.map, edit.timeline, edit.tiles, edit.table, edit.status]
    shown = [compare.cards, compare.tiles, compare.own, compare.status]
    private = {"api_visibility": "private", "show_progress": "hidden"}
    heavy = private | {"concurrency_id": "model", "concurrency_limit": 1}
    first = [examples.gallery, examples.status, examples.story, page.model.card, page.header]

    demo.load(studio.open_page, [examples.target, page.model.name], first, **private)
    demo.unload(studio.close)
    page.model.load.click(studio.choose_model, page.model.name, first + drawn + shown, **heavy)
    for event in (examples.target.change, examples.use_bundled.click):
        event(studio.choose_target, examples.target, first + drawn + shown, **private)
    for files in (examples.forget_files, examples.retain_files):
        both = [examples.forget_files, examples.retain_files]
        files.change(studio.read_own, both, [examples.captions, examples.status], **private)
    own = [examples.concept, examples.labels, examples.captions]
    examples.use_own.click(studio.use_own, own, first + drawn + shown, **heavy)
    examples.story.click(studio.tell, edit.settings(), [*first, *drawn, *shown, page.tabs], **heavy)
    edit.score.click(studio.score, edit.settings(), drawn + shown, **heavy)
    edit.grow_one.click(studio.grow_one, edit.settings(), drawn + shown, **heavy)
    edit.grow.click(studio.grow, edit.settings(), drawn + shown, **heavy)
    edit.undo.click(studio.undo, None, drawn + shown, **heavy)
    edit.reset.click(studio.reset, None, drawn + shown, **heavy)
    for stop, status in ((edit.stop, edit.status), (examples.stop, examples.status)):
        stop.click(studio.stop, None, status, queue=False, **private)
    for slider in (edit.alpha, edit.tau):
        slider.change(studio.rescale, edit.settings(), drawn, trigger_mode="always_last", **private)
    edit.map.units_change(studio.change_units, None, edit.map, trigger_mode="multiple", **private)
    edit.timeline.round_pick(studio.show_round, None, edit.status, **private)
    compare.refresh.click(studio.compare, None, drawn + shown, **heavy)
    compare.ask.click(studio.ask, [compare.files, compare.labels], shown, **heavy)


def _only(model: str) -> Callable[[str], ClipAdapter]:
    """A loader for a page that others can reach: they may not name paths of this machine or start downloads."""

    served = tuple(dict.fromkeys([*models.BUNDLED, model]))

    def load(name: str) -> ClipAdapter:
        if name not in served:
            raise InputError(f"This page serves {', '.join(served)}; pick one of them.")
        return models.load(name)

    return load


def launch(
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    auth: tuple[str, str] | None = None,
    share: bool = False,
    model: str = "mini-clip",
    block: bool = True,
) -> str:
    """Serve the page until interrupted; returns its address when `block` is False."""
    if not 0 < port < 65536:
        raise InputError(f"Port {port} does not exist; choose one from 1 to 65535.")
    if model not in models.BUNDLED:
        models.load(model)  # a wrong name is said here, before anything is served
    private = host in LOOPBACK and not share
    demo, studio = build_demo(models.load if private else _only(model), model=model)
    try:
        _, url, _ = demo.launch(
            server_name=host,
            server_port=port,
            auth=auth,
            share=share,
            theme=theme.studio_theme(),
            css=theme.css(),
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            show_error=False,
            max_file_size="100mb",
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise InputError(f"Cannot listen on {host}, port {port} ({error}); choose another with --port.") from error
    print(f"{NAME} is at {url}", flush=True)
    studio.warm_up(model)
    if block:
        demo.block_thread()
    return url


if __name__ == "__main__":
    launch()
