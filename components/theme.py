"""The look: one typeface, one accent, and colours that mean the same thing everywhere.

COLOURS is the only place a semantic colour is written down. `css()` turns it into the CSS variables that the
stylesheet and the charts read, so Python figures and the page cannot disagree.
"""

from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.util import find_spec
from pathlib import Path

import gradio as gr
from gradio.themes.utils import colors
from gradio.themes.utils.fonts import LocalFont

UI = Path(__file__).resolve().parent.parent / "assets" / "ui"

# Every pair reads at 4.5:1 or better as text on the page and on a card of its mode.
COLOURS: dict[str, dict[str, str]] = {
    "forget": {"light": "#c2371f", "dark": "#ff8066"},  # vermilion
    "retain": {"light": "#0b746b", "dark": "#45c9b8"},  # teal
    "neighbour": {"light": "#94600a", "dark": "#edb74d"},  # amber
    "original": {"light": "#5d6b82", "dark": "#9aa8bf"},  # slate
    "edited": {"light": "#3f51d6", "dark": "#93a3fb"},  # the accent
}

_ACCENT = colors.Color(
    name="razor",
    c50="#f1f4ff",
    c100="#e2e8ff",
    c200="#cad4fe",
    c300="#adbafc",
    c400="#93a3fb",
    c500="#6074ec",
    c600="#3f51d6",
    c700="#3442b4",
    c800="#2d3890",
    c900="#283273",
    c950="#191e45",
)

_NEUTRAL = colors.Color(
    name="razor-slate",
    c50="#f8f9fc",
    c100="#f0f3f8",
    c200="#e1e6ef",
    c300="#c9d1df",
    c400="#9aa8bf",
    c500="#5d6b82",
    c600="#47546a",
    c700="#333f54",
    c800="#1f2838",
    c900="#161d2b",
    c950="#0e131e",
)


def studio_theme() -> gr.themes.Base:
    """The Gradio theme: Plex, slate neutrals, an indigo-blue accent, an 8 px grid, no shadows."""
    theme = gr.themes.Base(
        primary_hue=_ACCENT,
        secondary_hue=_ACCENT,
        neutral_hue=_NEUTRAL,
        spacing_size=gr.themes.sizes.spacing_lg,
        radius_size=gr.themes.sizes.radius_md,
        text_size=gr.themes.sizes.text_md,
        font=[LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"],
        font_mono=[LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"],
    )
    theme.name = "razor"
    return theme.set(**_surfaces(), **_text(), **_controls(), **_buttons())


def _surfaces() -> dict[str, str]:
    return {
        "body_background_fill": "*neutral_50",
        "body_background_fill_dark": "*neutral_950",
        "background_fill_primary": "white",
        "background_fill_primary_dark": "*neutral_900",
        "background_fill_secondary": "*neutral_50",
        "background_fill_secondary_dark": "*neutral_950",
        "block_background_fill": "white",
        "block_background_fill_dark": "*neutral_900",
        "block_border_width": "1px",
        "block_border_color": "*neutral_200",
        "block_border_color_dark": "*neutral_700",
        "block_shadow": "none",
        "block_padding": "16px",
        "block_radius": "8px",
        "border_color_primary": "*neutral_200",
        "border_color_primary_dark": "*neutral_700",
        "border_color_accent": "*primary_600",
        "border_color_accent_dark": "*primary_400",
        "panel_background_fill": "white",
        "panel_background_fill_dark": "*neutral_900",
        "panel_border_color": "*neutral_200",
        "panel_border_color_dark": "*neutral_700",
        "layout_gap": "16px",
        "form_gap_width": "1px",
        "table_border_color": "*neutral_200",
        "table_border_color_dark": "*neutral_700",
        "table_even_background_fill": "white",
        "table_even_background_fill_dark": "*neutral_900",
        "table_odd_background_fill": "white",
        "table_odd_background_fill_dark": "*neutral_900",
        "code_background_fill": "*neutral_100",
        "code_background_fill_dark": "*neutral_800",
    }


def _text() -> dict[str, str]:
    return {
        "body_text_color": "*neutral_800",
        "body_text_color_dark": "*neutral_200",
        "body_text_color_subdued": "*neutral_500",
        "body_text_color_subdued_dark": "*neutral_400",
        "block_label_background_fill": "transparent",
        "block_label_background_fill_dark": "transparent",
        "block_label_border_width": "0px",
        "block_label_text_color": "*neutral_600",
        "block_label_text_color_dark": "*neutral_300",
        "block_title_text_color": "*neutral_700",
        "block_title_text_color_dark": "*neutral_200",
        "block_title_text_weight": "700",
        "block_title_text_size": "*text_sm",
        "block_info_text_color": "*neutral_500",
        "block_info_text_color_dark": "*neutral_400",
        "link_text_color": "*primary_600",
        "link_text_color_dark": "*primary_400",
        "link_text_color_hover": "*primary_700",
        "link_text_color_hover_dark": "*primary_300",
        "link_text_color_visited": "*primary_600",
        "link_text_color_visited_dark": "*primary_400",
        "link_text_color_active": "*primary_700",
        "link_text_color_active_dark": "*primary_300",
        "prose_header_text_weight": "700",
        "accordion_text_color": "*neutral_700",
        "accordion_text_color_dark": "*neutral_200",
        "table_text_color": "*neutral_800",
        "table_text_color_dark": "*neutral_200",
    }


def _controls() -> dict[str, str]:
    return {
        "color_accent": "*primary_600",
        "color_accent_soft": "*primary_50",
        "color_accent_soft_dark": "*neutral_800",
        "input_background_fill": "white",
        "input_background_fill_dark": "*neutral_950",
        "input_border_color": "*neutral_300",
        "input_border_color_dark": "*neutral_600",
        "input_border_color_focus": "*primary_600",
        "input_border_color_focus_dark": "*primary_400",
        "input_border_width": "1px",
        "input_shadow": "none",
        "input_shadow_focus": "0 0 0 2px *primary_100",
        "input_shadow_focus_dark": "0 0 0 2px *primary_900",
        "input_radius": "6px",
        "input_placeholder_color": "*neutral_500",
        "input_placeholder_color_dark": "*neutral_400",
        "slider_color": "*primary_600",
        "slider_color_dark": "*primary_400",
        "loader_color": "*primary_600",
        "loader_color_dark": "*primary_400",
        "checkbox_background_color_selected": "*primary_600",
        "checkbox_background_color_selected_dark": "*primary_600",
        "checkbox_border_color": "*neutral_400",
        "checkbox_border_color_dark": "*neutral_500",
        "checkbox_border_color_selected": "*primary_600",
        "checkbox_border_color_selected_dark": "*primary_400",
        "checkbox_label_background_fill": "white",
        "checkbox_label_background_fill_dark": "*neutral_900",
        "checkbox_label_background_fill_hover": "*neutral_100",
        "checkbox_label_background_fill_hover_dark": "*neutral_800",
        "checkbox_label_background_fill_selected": "*primary_50",
        "checkbox_label_background_fill_selected_dark": "*primary_950",
        "checkbox_label_border_color_selected": "*primary_600",
        "checkbox_label_border_color_selected_dark": "*primary_400",
        "checkbox_label_text_color_selected": "*primary_700",
        "checkbox_label_text_color_selected_dark": "*primary_200",
        "checkbox_label_border_width": "1px",
        "checkbox_label_shadow": "none",
        "checkbox_shadow": "none",
    }


def _buttons() -> dict[str, str]:
    return {
        "button_border_width": "1px",
        "button_large_radius": "6px",
        "button_medium_radius": "6px",
        "button_small_radius": "6px",
        "button_large_text_size": "15px",
        "button_large_text_weight": "700",
        "button_medium_text_weight": "700",
        "button_small_text_weight": "400",
        "button_transition": "background-color 120ms ease, border-color 120ms ease",
        "button_primary_background_fill": "*primary_600",
        "button_primary_background_fill_dark": "*primary_600",
        "button_primary_background_fill_hover": "*primary_700",
        "button_primary_background_fill_hover_dark": "*primary_700",
        "button_primary_border_color": "*primary_600",
        "button_primary_border_color_dark": "*primary_600",
        "button_primary_border_color_hover": "*primary_700",
        "button_primary_border_color_hover_dark": "*primary_700",
        "button_primary_text_color": "white",
        "button_primary_text_color_dark": "white",
        "button_primary_shadow": "none",
        "button_secondary_background_fill": "white",
        "button_secondary_background_fill_dark": "*neutral_800",
        "button_secondary_background_fill_hover": "*neutral_100",
        "button_secondary_background_fill_hover_dark": "*neutral_700",
        "button_secondary_border_color": "*neutral_300",
        "button_secondary_border_color_dark": "*neutral_600",
        "button_secondary_border_color_hover": "*neutral_400",
        "button_secondary_border_color_hover_dark": "*neutral_500",
        "button_secondary_text_color": "*neutral_800",
        "button_secondary_text_color_dark": "*neutral_100",
        "button_cancel_background_fill": "white",
        "button_cancel_background_fill_dark": "*neutral_800",
        "button_cancel_background_fill_hover": "*neutral_100",
        "button_cancel_background_fill_hover_dark": "*neutral_700",
        "button_cancel_border_color": "*neutral_500",
        "button_cancel_border_color_dark": "*neutral_400",
        "button_cancel_text_color": "*neutral_800",
        "button_cancel_text_color_dark": "*neutral_100",
    }


def css() -> str:
    """The page's stylesheet: the colour tokens for both modes, then every sheet of assets/ui, studio.css first."""
    light = _tokens("light")
    dark = _tokens("dark")
    paths = sorted(UI.glob("*.css"), key=lambda path: (path.name != "studio.css", path.name))
    sheets = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    return f":root {{\n{light}\n}}\n:root .dark, .dark {{\n{dark}\n}}\n\n{sheets}"


def _tokens(mode: str) -> str:
    return "\n".join(f"  --razor-{name}: {shade[mode]};" for name, shade in COLOURS.items())


def script(name: str) -> str:
    """The text of one widget's script in assets/ui."""
    return (UI / name).read_text(encoding="utf-8")


@cache
def plotly_js() -> Path:
    """Where Plotly's browser bundle lies. Lets Gradio serve that one file and nothing beside it."""
    spec = find_spec("plotly")
    assert spec is not None and spec.origin is not None, "plotly is a dependency of the page"
    path = Path(spec.origin).parent / "package_data" / "plotly.min.js"
    gr.set_static_paths([path])
    return path


def plotly_head() -> str:
    """The script tag that brings Plotly; its address is relative, so the page works below any path."""
    return f'<script src="gradio_api/file={plotly_js().as_posix()}"></script>'


def header_html(name: str, purpose: str, status: str = "", tone: str = "ready") -> str:
    """The page's first line: product name, what it is for, and a chip with the present state.

    Args:
        tone: "ready", "busy" or "problem"; the chip's mark changes shape with it.
    """
    chip = f'<span class="status-chip" data-tone="{escape(tone)}">{escape(status)}</span>' if status else ""
    return (
        '<header class="studio-header"><span class="studio-mark" aria-hidden="true"></span><div>'
        f"<h1>{escape(name)}</h1><p>{escape(purpose)}</p></div>{chip}</header>"
    )


def finding_html(sentence: str) -> str:
    """The sentence above a chart that says what the chart shows."""
    return f'<p class="finding">{escape(sentence)}</p>'


def status_html(sentence: str, tone: str = "ready") -> str:
    """One line saying what is happening; `tone` as in `header_html`."""
    return f'<p class="status-line" data-tone="{escape(tone)}" role="status">{escape(sentence)}</p>'


def pictures_html(pictures: Sequence[tuple[str, str]]) -> str:
    """A row of pictures with captions; addresses are ours, captions may be anybody's."""
    shown = "".join(
        f'<figure><img src="{escape(url)}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'
        for url, caption in pictures
    )
    return f'<div class="pictures">{shown}</div>'


def tile_html(label: str, after: str, before: str = "", interval: str = "", kind: str = "") -> str:
    """One metric tile.

    Args:
        after: the number to read first, with its unit.
        before: the same number on the original model; empty where there is none.
        interval: small print in lines: interval and n.
        kind: a key of COLOURS, drawn as the tile's edge; empty for none.
    """
    was = f'<span class="tile-before">{escape(before)} <span aria-label="to">&rarr;</span></span> ' if before else ""
    small = f'<div class="tile-interval">{escape(interval)}</div>' if interval else ""
    return (
        f'<div class="tile" data-kind="{escape(kind)}"><div class="tile-label">{escape(label)}</div>'
        f'<div class="tile-number">{was}<span class="tile-after">{escape(after)}</span></div>{small}</div>'
    )


def tiles_html(tiles: Sequence[str]) -> str:
    """A row of tiles made by `tile_html`."""
    return f'<div class="tiles">{"".join(tiles)}</div>'


def note_html(sentence: str) -> str:
    """A quiet line below numbers that says what they were counted on; nothing where there is nothing to say."""
    return f'<p class="counted">{escape(sentence)}</p>' if sentence else ""


def model_card_html(name: str, facts: Sequence[tuple[str, str]], note: str = "") -> str:
    """A model's name, its facts as label and text, and one line of remark."""
    rows = "".join(f"<div><dt>{escape(label)}</dt><dd>{escape(text)}</dd></div>" for label, text in facts)
    remark = f"<p>{escape(note)}</p>" if note else ""
    return f'<section class="model-card"><h3>{escape(name)}</h3>{remark}<dl>{rows}</dl></section>'
