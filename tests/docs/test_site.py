"""The documentation site is built strictly: a link inside that leads nowhere fails."""

import re
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY

pytestmark = pytest.mark.ci


def test_site_is_built_without_a_warning(tmp_path: Path) -> None:
    build = pytest.importorskip("sphinx.cmd.build", reason="needs the extra docs")
    options = ["--fail-on-warning", "--keep-going", "-q", "-d", str(tmp_path / "doctrees")]
    assert build.main([*options, str(REPOSITORY / "docs"), str(tmp_path / "site")]) == 0
    site = tmp_path / "site"
    pages = re.findall(r'<iframe src="([^"]+)"', (site / "index.html").read_text())
    # Students that play on the start page
    assert pages and all((site / page).read_text().count("<canvas") == 1 for page in pages)


def test_pages_on_which_students_play_are_of_today() -> None:
    for page in (REPOSITORY / "docs" / "live").glob("*.html"):
        for script in (REPOSITORY / "sb3_distill" / "export" / "web").glob("*.js"):
            assert script.read_text().rstrip("\n") in page.read_text(), f"export {page.name} anew"


def test_the_published_report_looks_as_reports_do_today() -> None:
    template, page = (
        (REPOSITORY / path).read_text() for path in ("sb3_distill/study/report.html.j2", "docs/report/index.html")
    )
    style = template[template.index("<style>") : template.index("</style>")]
    assert style in page, "write docs/report anew, as docs/study_results.md says"
