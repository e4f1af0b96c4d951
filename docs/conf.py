"""Settings of the documentation site (`make docs`)."""

from sb3_distill.version import __version__

project = "sb3-distill"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_show_copyright = False
# Pages of `sb3-distill export --format web`, for the start page
html_extra_path = ["live"]
html_title = f"sb3-distill {release}"
exclude_patterns = ["_build", "live"]
# Links to headings of other pages, as GitHub makes them
myst_heading_anchors = 4
autodoc_typehints = "description"
autodoc_member_order = "bysource"
# The tables of studies, which stand in reports too, begin at their second level
suppress_warnings = ["myst.header"]
