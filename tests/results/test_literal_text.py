"""Text from files, as it stands: in Markdown, in LaTeX, in figures."""

import pytest

from sb3_distill.results.figures import make_axes, save_figure
from sb3_distill.results.tables import escape_markdown, format_markdown
from sb3_distill.study.tables import to_latex


@pytest.mark.parametrize("text", ["$\\foo$", "$", "a_b $x^2$", "\\"])
def test_figures_have_no_formulas(text, tmp_path):
    figure, axes = make_axes(text, "y")
    axes.plot([0, 1], [0, 1], label=text)
    axes.set_xticks([0, 1], [text, "b"])
    figure.legend(title=text)
    save_figure(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 0


def test_markdown():
    assert escape_markdown("<b> [x](javascript:y) `a` *b*") == r"\<b\> \[x\](javascript:y) \`a\` \*b\*"
    table = format_markdown([["a\n\n# head", "b"], ["x\\|y", "1"]], 1)
    assert table == "| a # head | b |\n| --- | ---: |\n| x\\\\\\|y | 1 |\n"


def test_latex():
    text = to_latex([["a"], ["[1] \n\n*x\\input{y}"]], 1, "b\n\nc")
    assert "\n{[}1{]} " not in text and "{[}1] {*}x\\textbackslash{}input\\{y\\} \\\\" in text and "{b c}" in text
