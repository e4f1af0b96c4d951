"""What came out of studies, as tables, figures and one page."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from sb3_distill.export.web.page import web_page
from sb3_distill.results.row import Row
from sb3_distill.results.statistics import NORMALIZED, SIGNED_QUOTIENT
from sb3_distill.study.cell import Cell
from sb3_distill.study.manifest import Manifest
from sb3_distill.study.report import describe_study
from sb3_distill.study.report import main as report
from sb3_distill.study.reporting.legend import describe_legend, describe_protocol
from sb3_distill.study.reporting.means import geometric_groups
from sb3_distill.study.reporting.pictures import draw_figures
from sb3_distill.study.tables import (
    Group,
    describe_numbers,
    find_published,
    group_rows,
    label_names,
    list_runs,
    plot_group_sizes,
    plot_groups,
    table_of,
    to_latex,
)
from tests.export.test_web import balancing_policy


def test_published_numbers_and_tables():
    row = Row(
        "A", "cell", "pd", n_parameters=1_000, n_bytes=4_000, teacher_mean=50.0, percent_definition=SIGNED_QUOTIENT
    )
    rows = [
        replace(row, labels={"loss": loss}, seed=seed, percent_of_teacher=percent, mean=percent / 2, std=std)
        for loss, seed, percent, std in (("kl", 0, 90.0, 3.0), ("kl", 1, 110.0, 4.0), ("nll", 0, 80.0, 2.0))
    ]
    rows[2] = replace(rows[2], percent_interval=[70.0, 89.5])
    grid = {"env": ["A"], "loss": ["kl", "nll"], "seed": ["0", "1"]}
    assert label_names(rows, grid) == ["loss"]
    # What the grid compares counts, not what has finished.
    assert label_names(rows[:1], grid) == ["loss"] and label_names(rows, {"env": ["A"], "seed": ["0"]}) == ["env"]
    # Seeds are not what is compared, though nothing else is there.
    assert label_names(rows, {"seed": ["0", "1"]}) == ["env"]
    groups = group_rows(rows, grid, [{"env": "A", "loss": "kl", "percent": 94.7}])
    table = table_of(groups)
    assert table[0][:5] == ["loss", "parameters", "bytes", "teacher's score", "student's score"]
    assert table[0][5:] == ["std within runs", "% of teacher", "95% interval", "margin 5%", "seeds", "paper, %"]
    # Two runs one by one, the spread within them apart, and Student's t interval over them
    assert table[1][:5] == ["kl", "1,000", "4,000", "50.00", "45.00, 55.00"]
    assert table[1][5:] == ["3.54", "90.0, 110.0", "-27.1 to 227.1", "undecided", "2", "94.7"]
    # A single run has the interval over its episodes.
    assert table[2][5:] == ["2.00", "80.0", "70.0 to 89.5", "worse", "1", ""]
    assert table_of(groups, margin=35.0)[2][8] == "not worse" and table_of(groups, margin=35.0)[0][8] == "margin 35%"
    legend = describe_numbers(groups, 35.0)
    assert "signed quotient, 100 + 100 (score - teacher) / |teacher|" in legend and "Student's t interval" in legend
    assert (
        "margin 35%: not worse if the whole interval is above 65%" in legend
        and "paper: the quotient 100 student" in legend
    )
    other = replace(row, labels={"loss": "mse"})
    assert find_published(other.to_dict(), ["loss"], [{"env": "A", "loss": "kl", "percent": 1}]) is None
    # What was measured in another game does not stand beside this one.
    assert find_published(rows[0].to_dict(), ["loss"], [{"env": "B", "loss": "kl", "percent": 1}]) is None
    latex = to_latex([["a", "b"], ["kl", "100.0 ± 10.0"]], 1, "50% & more")
    assert r"\textbackslash{}a\textasciicircum{}b\textasciitilde{}c\_d" in to_latex([["\\a^b~c_d"], ["1"]], 1, "")
    assert r"\caption{50\% \& more}" in latex and r"100.0 $\pm$ 10.0" in latex and latex.count(r"\\") == 2


def test_many_runs_are_a_mean_with_the_deviation_of_a_sample():
    assert list_runs(()) == "" and list_runs([1.0, 2.0, 3.0]) == "1.0, 2.0, 3.0"
    assert list_runs([1.0, 2.0, 3.0, 4.0], 2) == "2.50 ± 1.29"


def test_normalized_percentages_are_named():
    row = Row("A", "cell", "mtpd", n_parameters=10, n_bytes=40, percent_of_teacher=80.0, percent_definition=NORMALIZED)
    groups = group_rows([row, replace(row, percent_of_teacher=None, percent_definition=None)], {"env": ["A"]}, [])
    assert "normalized %" in table_of(groups)[0] and "% of teacher" not in table_of(groups)[0]
    assert "normalized, 100 (score - random) / (teacher - random)" in describe_numbers(groups, 5.0)
    assert plot_groups(groups).axes[0].get_ylabel() == "% between a random player\nand the teacher"


def test_geometric_means_over_games():
    rows = [
        Row(
            env,
            "cell",
            "pd",
            n_parameters=size,
            n_bytes=400,
            percent_of_teacher=percent,
            max_percent=percent + 5,
            teacher_mean=1.0,
            labels={"loss": loss},
            seed=seed,
        )
        for env, loss, percent, size, seed in (
            ("A", "kl", 40.0, 100, 0),
            ("A", "kl", 90.0, 100, 1),
            ("A", "kl", 60.0, 100, 2),
            ("B", "kl", 250.0, 120, 0),
            ("B", "kl", 160.0, 120, 1),
            ("A", "nll", 70.0, 100, 0),
        )
    ]
    published = [{"env": env, "loss": "kl", "percent": percent} for env, percent in (("A", 90.0), ("B", 40.0))]
    groups = group_rows(rows, {"env": ["A", "B"], "loss": ["kl", "nll"]}, published)
    (mean,) = geometric_groups(groups, ["A", "B"])
    # One mean for each seed that both games have; nll has not finished in B.
    assert mean.labels == {"env": "geometric mean", "loss": "kl"} and mean.percents == pytest.approx([100.0, 120.0])
    # A mean stands beside the paper's mean alone.
    assert [group.published for group in groups] == [90.0, 40.0, None] and mean.published is None
    of_paper = [*published, {"env": "geometric mean", "loss": "kl", "percent": 60.0}]
    assert geometric_groups(groups, ["A", "B"], of_paper)[0].published == 60.0
    # It may say what all runs have in common.
    common = [{**of_paper[-1], "algo": "pd"}]
    assert geometric_groups(groups, ["A", "B"], common)[0].published == 60.0
    assert (mean.n_parameters, mean.n_bytes) == (None, 400)
    assert geometric_groups(groups[:1], ["A"]) == []
    table = table_of([*groups, mean])
    assert table[0][7:] == ["% of teacher", "95% interval", "margin 5%", "max %", "seeds", "paper, %"]
    assert table[-1][:7] == ["geometric mean", "kl", "", "400", "", "", ""]
    # Student's t goes down to -17.1, and a geometric mean, which counts no percentage below 1, does not.
    assert table[-1][7:] == ["100.0, 120.0", "1.0 to 237.1", "undecided", "", "2", ""]


def test_figures_of_groups():
    groups = [
        Group({"env": env, "loss": loss}, (percent, 90.0), (), (), (), 100, n_bytes, None, 2)
        for env, loss, percent, n_bytes in (
            ("PongNoFrameskip-v4", "kl", 80.0, 400),
            ("QbertNoFrameskip-v4", "kl", 100.0, 100),
            ("QbertNoFrameskip-v4", "nll", 70.0, 100),
        )
    ]
    figure = plot_groups(groups)
    assert [bar.get_height() for bar in figure.axes[0].patches] == [85, 95, 80]
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["Pong", "Qbert"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["kl", "nll"]
    many = [replace(group, labels={"env": f"game {index}", "loss": "kl"}) for index in range(20) for group in groups]
    assert plot_groups(many).get_figwidth() > figure.get_figwidth()
    axes = plot_group_sizes(groups).axes[0]
    assert [line.lines[0].get_xydata().tolist() for line in axes.containers] == [[[100, 95], [100, 80]], [[400, 85]]]
    assert table_of(groups)[1][0] == "Pong"


def test_sizes_of_multi_task_students_stand_against_the_mean_of_their_tasks(tmp_path, monkeypatch):
    groups = [
        Group({"student": student, "task": task}, (percent,), (), (), (), n_bytes, n_bytes, None, 1)
        for student, n_bytes in (("small", 100), ("large", 400))
        for task, percent in (("Pong", 90.0), ("geometric mean", 80.0))
    ]
    drawn: list[Group] = []
    monkeypatch.setattr(
        "sb3_distill.study.reporting.pictures.plot_group_sizes", lambda sized: drawn.extend(sized) or Figure()
    )
    assert len(draw_figures(tmp_path, groups, [])) == 2
    assert [group.percents for group in drawn] == [(80.0,), (80.0,)]


@pytest.fixture
def real_time_study(tmp_path) -> Path:
    """The folder of a study of CartPole with two seeds, of which one has its run folder."""
    folder = tmp_path / "study"
    rows, manifests = [], []
    for seed, torch in ((0, "2.10"), (1, "2.11")):
        row = {"env": "CartPole-v1", "agent": f"cell{seed}", "algo": "rtpd", "seed": seed}
        row |= {"teacher_mean": 9.0, "mean": 9.0, "n_parameters": 10, "n_bytes": 40}
        row |= {"percent_of_teacher": 100.0, "max_percent": 130.0}
        rows += [{**row, "player": "large"}, {**row, "player": "small", "n_bytes": 20}]
        cell = {"algo": "rtpd", "env": "CartPole-v1", "seed": seed, "labels": {"seed": str(seed)}, "evaluation": {}}
        cell["hyperparams"] = {}
        seconds, versions = {"train": 60.0, "evaluate": 0.0}, {"torch": torch}
        manifests.append({"cell": cell, "rows": rows[-2:], "seconds": seconds, "versions": versions})
        manifests[-1]["command"] = f"rl_zoo3.train -f {folder}/cells/cell{seed}"
    run = folder / "cells" / "cell0" / "rtpd" / "CartPole-v1_1"
    run.mkdir(parents=True)
    (run / "learning_curves.csv").write_text("player,n_timesteps,mean_reward\nlarge,10,1\nlarge,20,2\n")
    study = {"name": "s", "title": "CartPole & losses", "paper": "", "notes": "", "cells": 2}
    study["grid"] = {"seed": ["0", "1"]}
    study["published"] = [{"env": "CartPole-v1", "player": "large", "percent": 101.5}]
    (folder / "results.json").write_text(
        json.dumps({"study": study, "agents": rows, "manifests": manifests, "failures": []})
    )
    return folder


def test_report_of_a_real_time_study(real_time_study):
    described = describe_study(real_time_study)
    assert [cells[0] for cells in described.table] == ["player", "large", "small"]
    assert described.table[1][-3:] == ["130.0, 130.0", "2", "101.5"]
    assert "Seeds 0, 1. Students beside a teacher: the mean over the last 10 evaluations" in described.legend
    assert "30 episodes" not in described.legend
    assert described.versions == ["torch 2.10 (cells: 1)", "torch 2.11 (cells: 1)"]
    assert described.commands[0] == "rl_zoo3.train -f study/cells/cell0"
    captions = [figure.caption.split(":")[0] for figure in described.figures]
    assert captions == ["Bars", "Size against return", "Learning curves"]


def test_legends_say_how_scores_were_measured():
    evaluation = {"n_episodes": 100, "epsilon": 0.05, "select": "best", "starts_from": "random"}
    cells = [Cell("pd", "CartPole-v1", 0, evaluation=evaluation)]
    assert describe_protocol(cells) == (
        "100 episodes with 5% random actions for each run, the best model of its evaluations, the same held-out starts "
        "for teacher and student."
    )
    # So are the best models of students beside a teacher.
    assert describe_protocol([Cell("rtpd", "CartPole-v1", 0, evaluation=evaluation)]) == describe_protocol(cells)
    both = [*cells, Cell("rtpd", "CartPole-v1", 0)]
    assert describe_protocol(both).endswith("student. " + describe_protocol(both[1:]))
    alone = Cell("rtpd", "CartPole-v1", 0, hyperparams={"students": None})
    assert describe_protocol([alone]).startswith("30 episodes with 0% random actions for each run, the same starts")


def test_legends_tell_of_shared_recordings_and_repeated_episodes():
    row = Row("A", "cell", "pd", 10, 40, mean=1.0, returns=[1.0] * 100, n_distinct=30)
    once = replace(row, n_distinct=100)
    seconds = {"train": 60.0}
    for records, shared in ((False, False), ("per seed", False), ("shared", True), (True, True)):
        cells = [Cell("pd", "A", seed, records=records) for seed in (0, 1)]
        manifests = [Manifest(cell, (each,), seconds, "", {}) for cell, each in zip(cells, (row, once), strict=True)]
        legend = describe_legend(manifests)
        assert ("All seeds learned from one recording" in legend) == shared
        assert "In 1 of 2 rows, episodes are exact repeats of others (down to 30 distinct ones of 100)" in legend
    # One seed shares with nobody, and rtpd has no recording.
    assert "one recording" not in describe_legend(manifests[:1])
    manifests = [Manifest(Cell("rtpd", "A", seed, records="shared"), (once,), seconds, "", {}) for seed in (0, 1)]
    assert "recording" not in describe_legend(manifests) and "repeats" not in describe_legend(manifests)


def test_report_of_a_study_that_has_just_begun(real_time_study, tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    study = json.loads((real_time_study / "results.json").read_text())["study"] | {"name": "b", "title": "Begun"}
    failures = [{"labels": {"seed": "0"}, "problem": "no teacher"}]
    results = {"study": study, "agents": [], "manifests": [], "failures": failures}
    (begun / "results.json").write_text(json.dumps(results))
    assert report([str(begun), str(real_time_study), "-o", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Cells that have not finished: 2 of 2." in page and "<li>0: no teacher</li>" in page
    assert page.count("<table>") == page.count("<details>") == 1
    section = (tmp_path / "report" / "tables.md").read_text().split("## CartPole")[0]
    assert section == "## Begun\n\nCells that have not finished: 2 of 2.\n\nFailed: 0: no teacher\n\n"
    assert (tmp_path / "report" / "tables.tex").read_text().count(r"\begin{table}") == 1


def test_report_of_no_folder(tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    for name, problem in (("gone", "is not there"), ("notes.txt", "is a file")):
        assert report([str(tmp_path / name)]) == 1
        error = capsys.readouterr().err
        assert f"{tmp_path / name} holds no results of a study ({tmp_path / name} {problem})" in error


def test_report_of_no_study(tmp_path, capsys):
    for content in (None, "[]", '{"agents": []}'):
        if content is not None:
            (tmp_path / "results.json").write_text(content)
        assert report([str(tmp_path)]) == 1
        assert "holds no results of a study" in capsys.readouterr().err


IS_PLAYING = """new Promise((done) => {
    const score = document.getElementById("score");
    const look = () => Number(score.textContent) > 20 ? done(true) : requestAnimationFrame(look);
    look();
})"""
WHOLE_EPISODE = """() => {
    const mine = new CartPole(() => 0.7);
    while (mine.step(act(policy, mine.observation())));
    return mine.score;
}"""


USUAL_FIGURES_FIT = """() => {
    const isUsual = (each) => each.style.getPropertyValue("--inches") <= 5.5;
    const usual = [...document.querySelectorAll("figure")].filter(isUsual);
    return usual.length > 0 && usual.every((each) => each.firstChild.scrollWidth <= each.firstChild.clientWidth);
}"""


@pytest.mark.ci
def test_report_in_a_browser(real_time_study, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "play.html").write_text(web_page(balancing_policy(), f"<{name}>", "CartPole-v1", 10))
    plays = ["--play", str(tmp_path / "one"), str(tmp_path / "two")]
    assert report([str(real_time_study), "-o", str(tmp_path / "report"), "--title", "<Losses>", *plays]) == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert "&lt;Losses&gt;" in page and "CartPole &amp; losses" in page and "101.5" in page
    # Self-contained
    assert "http://" not in page and "https://" not in page and 'src="data:image/png' in page
    assert "| large |" in (tmp_path / "report" / "tables.md").read_text()
    assert r"\toprule" in (tmp_path / "report" / "tables.tex").read_text()
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    playwright = pytest.importorskip("playwright.sync_api")
    if browser_path is None:
        pytest.skip("no Chromium on the path")
    with playwright.sync_playwright() as driver:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = driver.chromium.launch(executable_path=browser_path, args=options)
        errors: list[str] = []
        for width, height in ((1280, 900), (390, 844)):
            tab = browser.new_page(viewport={"width": width, "height": height})
            tab.on("pageerror", lambda error: errors.append(str(error)))
            tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
            tab.goto((tmp_path / "report" / "index.html").as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
            assert tab.locator("td").first.is_visible() and not errors
            # Figures of usual width are seen as a whole.
            assert tab.evaluate(USUAL_FIGURES_FIT)
            students = tab.frames[1:]
            assert [each.locator("h1").inner_text() for each in students] == ["<one>", "<two>"]
            for student in students:
                assert student.evaluate("document.documentElement.scrollWidth") <= width
                assert student.evaluate(IS_PLAYING)
                assert student.evaluate(WHOLE_EPISODE) == 500
        # Nothing is fetched, whatever a page asks for.
        assert students[0].evaluate(
            "new Promise((done) => { addEventListener('securitypolicyviolation', () => done(true));"
            " fetch('http://localhost:1/').catch(() => {}); })"
        )
        browser.close()


def test_folders_without_a_page_are_refused(real_time_study, tmp_path, capsys):
    assert report([str(real_time_study), "-o", str(tmp_path / "report"), "--play", str(tmp_path)]) == 1
    assert "has no page on which a student plays" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
