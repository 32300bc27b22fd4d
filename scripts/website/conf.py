"""How Sphinx makes the site of the staged pages."""

from vae import __version__

project = "vae"
author = "the vae developers"
release = version = __version__
root_doc = "index"
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "website.extension"]
nb_execution_mode = "off"  # the notebooks hold their outputs
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4

default_role = "code"
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "show-inheritance": True,
    "exclude-members": "set",  # Matplotlib's, written for its own pages
}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # those of Lightning and torch are written for other readers
python_use_unqualified_type_names = True
maximum_signature_line_length = 90
add_module_names = False

suppress_warnings = ["ref.python"]  # two classes are called Codes: latents of images, and a kind of latents

html_theme = "furo"
html_title = "Variational autoencoders"
html_static_path: list[str] = []  # what moves is written by scripts/website/live.py
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
html_use_index = False
html_show_search_summary = False  # it would read the pages, which a page that was opened by a double click may not
html_domain_indices = False
html_math_renderer = "mathml"
html_css_files = ["live/live.css"]
html_js_files = [("live/live.js", {"defer": "defer"})]
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#2456d6",
        "color-brand-content": "#2456d6",
        "mark": "#c2185b",
        "soft": "#e7edfc",
        "dot": "rgb(255 255 255 / 55%)",
    },
    "dark_css_variables": {
        "color-brand-primary": "#86a9ff",
        "color-brand-content": "#86a9ff",
        "mark": "#ff7ba5",
        "soft": "#2a3551",
        "dot": "rgb(255 255 255 / 60%)",
    },
    "navigation_with_keys": False,
}
