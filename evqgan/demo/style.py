"""How the page looks: system fonts and a quiet theme, nothing that is loaded from elsewhere."""

import gradio as gr

SANS = ("ui-sans-serif", "system-ui", "sans-serif")
MONO = ("ui-monospace", "Consolas", "monospace")
CSS = """
.gradio-container { max-width: 1180px !important; width: 100% !important; }
.gradio-container { margin: 0 auto !important; }
.grid-wrap { max-height: none !important; overflow: hidden !important; }
#heading h1 { margin-bottom: 0; }
#heading p { color: var(--body-text-color-subdued); margin-top: 0.25rem; }
.pixels img { image-rendering: pixelated; }
.line p { color: var(--body-text-color-subdued); min-height: 1.5em; }
.aside { align-self: end; max-height: 42px; margin-bottom: 10px; }
[id$="-command"] .empty { min-height: 4rem !important; }
footer { display: none !important; }
"""


def theme() -> gr.themes.Base:
    """Return the theme, whose fonts are the system's own."""
    hue = {"primary_hue": "teal", "secondary_hue": "teal", "neutral_hue": "slate"}
    return gr.themes.Default(**hue, radius_size="sm", font=SANS, font_mono=MONO)
