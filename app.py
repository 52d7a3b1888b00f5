"""RAZOR Studio: place the panels, wire the events, launch. Start it with `python -m razor app`."""

import os
import socket
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # no outside request; must come before gradio

try:
    import spaces  # on a Space that lends its GPU call by call; it must come before torch
except ImportError:
    spaces = None

import gradio as gr
from starlette.middleware import Middleware

from components import (
    answer_panel,
    check_panel,
    compare_panel,
    drift_panel,
    edit_panel,
    endpoints,
    examples_panel,
    export_panel,
    glossary,
    guide,
    model_panel,
    picture_panel,
    stack_panel,
    theme,
    trust_panel,
    why_panel,
)
from components.arrivals import Arrivals
from components.blocks import Blocks
from components.desk import Page
from components.session import Sessions
from components.studio import NAME, PURPOSE, Studio
from components.wiring import ONE_AT_A_TIME, wire
from razor import models
from razor.adapters.clip import ClipAdapter
from razor.cli import main
from razor.errors import InputError
from razor.host import keep_memory, rest_cores

if spaces is not None:
    # Such a Space wants one function that asks for its GPU. None here does: a handler's work stays in this process,
    # where a lent card never is, so models run on the CPU there (razor/device.py).
    spaces.GPU(lambda: None)

INSTALL_MCP = "Run: .venv/bin/python -m pip install 'mcp>=1.21,<2', or leave --mcp out."
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def build_demo(
    load: Callable[[str], ClipAdapter] = models.load,
    *,
    model: str = "mini-clip",
    sessions: Sessions | None = None,
) -> tuple[gr.Blocks, Studio]:
    """The page and its handlers; tests pass a `load` and sessions of their own."""
    with Blocks(title=NAME, fill_width=True, delete_cache=(3600, 86400)) as demo:
        page = place(model)
        studio = Studio(page, load, sessions)
        endpoints.add(load, ONE_AT_A_TIME)  # first, so that they get the plain names
        wire(demo, studio)
    demo.queue(api_open=False, max_size=64, default_concurrency_limit=8)
    return demo, studio


def place(model: str) -> Page:
    """Lay out all panels."""
    with gr.Row(elem_id="top"):
        header = gr.HTML(
            theme.header_html(NAME, PURPOSE, f"{model}, bundled" if model in models.BUNDLED else model),
            apply_default_css=False,
        )
        toggle = guide.build_toggle()
    guided = guide.build(toggle)
    with gr.Tabs(elem_id="screens") as tabs:
        with gr.Tab("1  Model & examples", id="model"), gr.Row():
            with gr.Column(scale=2, min_width=300):
                offer = examples_panel.build_offer()
                target, story, stop, status = examples_panel.build_target()
                model_widgets = model_panel.build(model)
            with gr.Column(scale=5, min_width=520):
                gallery = examples_panel.gallery()
                words = examples_panel.build_words()
                own = examples_panel.build_own()
        with gr.Tab("2  Map & edit", id="edit"):
            edit = edit_panel.build()
            trust, why = trust_panel.build(), why_panel.build()
            drift, stack = drift_panel.build(), stack_panel.build()
        with gr.Tab("3  Compare", id="compare"):
            compare = compare_panel.build()
            pictures = picture_panel.build()
            asks = answer_panel.build()
        with gr.Tab("4  Check", id="check"):
            check = check_panel.build()
        with gr.Tab("5  Take away", id="export"):
            taken = export_panel.build()
    examples = examples_panel.ExamplesPanel(target, story, stop, status, *offer, gallery, *own)
    return Page(
        header,
        tabs,
        guided,
        model_widgets,
        examples,
        words,
        edit,
        trust,
        why,
        drift,
        stack,
        compare,
        pictures,
        asks,
        check,
        taken,
    )


def _only(model: str, load_any: Callable[[str], ClipAdapter]) -> Callable[[str], ClipAdapter]:
    """A loader for a page that others can reach: they may not name paths of this machine or start downloads."""

    served = tuple(dict.fromkeys([*models.BUNDLED, model]))

    def load(name: str) -> ClipAdapter:
        if name not in served:
            raise InputError(f"This page serves {', '.join(served)}; pick one of them.")
        return load_any(name)

    return load


def launch(
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    auth: tuple[str, str] | None = None,
    share: bool = False,
    model: str = "mini-clip",
    dtype: str | None = None,
    mcp: bool = False,
    block: bool = True,
) -> str:
    """Serve the page until interrupted; returns its address when `block` is False."""
    if mcp and find_spec("mcp") is None:
        raise InputError(f"--mcp needs the package mcp, which is not installed. {INSTALL_MCP}")
    keep_memory()

    def load(name: str) -> ClipAdapter:
        """A precision is that of the model the page is started with; others have their own."""
        return models.load(name, dtype=dtype if name == model else None)

    if model not in models.BUNDLED or dtype:
        load(model)  # a wrong name or precision is said here, before anything is served
    private = host in LOOPBACK and not share
    demo, studio = build_demo(load if private else _only(model, load), model=model)
    try:
        _, url, _ = demo.launch(
            server_name=host,
            server_port=port,
            auth=auth,
            share=share,
            theme=theme.studio_theme(),
            css=theme.css(),
            head=glossary.head() + picture_panel.head(),
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            show_error=False,
            max_file_size="100mb",
            ssr_mode=False,
            mcp_server=mcp,
            app_kwargs={"middleware": [Middleware(Arrivals)]},
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:  # taken meanwhile
        raise _cannot_listen(host, port, "it is taken") from error
    if mcp and not demo.mcp_server:  # Gradio goes on without, where another version of mcp is there
        demo.close(verbose=False)
        raise InputError(f"--mcp could not be served ({demo.mcp_error or 'Gradio does not say why'}). {INSTALL_MCP}")
    print(f"{NAME} is at {url}", flush=True)
    rest_cores()  # making the page and its model took some; from here on this thread has nothing to compute
    studio.warm_up(model)
    if block:
        try:
            while demo.is_running:
                time.sleep(0.2)
        finally:
            demo.close(verbose=False)  # uploads go
    return url


def check_address(host: str, port: int) -> None:
    """Refuse an address that is taken or not of this machine."""
    if not 0 < port < 65536:
        raise InputError(f"Port {port} does not exist; choose one from 1 to 65535.")
    try:
        family, *_, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        raise _cannot_listen(host, port, error.strerror) from error


def _cannot_listen(host: str, port: int, why: str) -> InputError:
    return InputError(f"Cannot listen on {host}, port {port}: {why}. Choose another with --port or --host.")


if __name__ == "__main__":  # as a Space and the container start it: python -m razor app, with what was given
    sys.modules["app"] = sys.modules["__main__"]  # which imports this file by its name
    main(["app", *sys.argv[1:]])
