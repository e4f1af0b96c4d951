"""What a user gets from ``pip install``: checked in fresh environments, with the literal commands of the Zoo."""

import re
import zipfile
from pathlib import Path

import pytest

from sb3_distill.version import __version__
from tests.helpers import REPOSITORY, fresh_python, run_python, site_packages


def test_nothing_needs_what_linux_alone_has():
    needy = [path for path in (REPOSITORY / "sb3_distill").rglob("*.py") if "/proc/" in path.read_text()]
    assert not needy


def test_the_citation_is_of_this_version():
    assert f"\nversion: {__version__}\n" in (REPOSITORY / "CITATION.cff").read_text()


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    return fresh_python(tmp_path)


def test_wheel_has_what_it_needs_and_nothing_beside(wheel: Path) -> None:
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    expected = {"sb3_distill.pth", "sb3_distill.start", "sb3_distill_zoo.py", "sb3_distill/py.typed"}
    expected |= {str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("sb3_distill/**/*.py")}
    for folder in ("hyperparams", "studies"):
        expected |= {f"sb3_distill/{folder}/{path.name}" for path in REPOSITORY.glob(f"{folder}/*.yml")}
    for ending in ("j2", "js", "json"):
        expected |= {str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob(f"sb3_distill/**/*.{ending}")}
    assert set(names) == expected


def test_a_release_has_the_addresses_of_its_repository(checkout: Path, tmp_path: Path) -> None:
    github = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "me/it", "GITHUB_REF_NAME": "v1"}
    command = ["setup.py", "--quiet", "dist_info", "--output-dir", str(tmp_path)]
    run_python(checkout, *command, **github)
    (metadata,) = tmp_path.glob("*.dist-info/METADATA")
    text = metadata.read_text()
    assert "Project-URL: Source, https://github.com/me/it\n" in text
    assert "](https://github.com/me/it/blob/v1/docs/pd.md)" in text
    assert "](https://github.com/me/it/raw/v1/docs/figures/pong_maps.gif)" in text
    # Or to a heading of the README itself
    assert all(link.startswith(("https:", "#")) for link in re.findall(r"\]\(([^)]+)", text))


@pytest.mark.ci
@pytest.mark.parametrize("mode", ["wheel", "editable"])
def test_zoo_knows_us_once_installed_and_forgets_us_afterwards(
    mode: str, fresh: Path, tmp_path: Path, request: pytest.FixtureRequest, cartpole_teacher: Path
) -> None:
    def pip(*arguments: str | Path) -> None:
        run_python(tmp_path, "-m", "pip", "--quiet", "--python", fresh, *arguments)

    def start() -> str:
        """What is there of us when Python starts."""
        code = """
import importlib.util, sys
n_finders = [type(finder).__name__ for finder in sys.meta_path].count("ZooFinder")
print(n_finders, importlib.util.find_spec("sb3_distill") is not None, "torch" in sys.modules)
"""
        result = run_python(tmp_path, "-c", code, python=fresh)
        return result.stdout + result.stderr

    before = sorted(path.name for path in site_packages(fresh).iterdir())
    assert start() == "0 False False\n"

    # The sb3-distill that runs these tests is in sight of pip: --ignore-installed
    if mode == "wheel":
        pip("install", "--ignore-installed", "--no-deps", request.getfixturevalue("wheel"))
        configs = site_packages(fresh) / "sb3_distill" / "hyperparams"
    else:
        checkout = request.getfixturevalue("checkout")
        pip("install", "--ignore-installed", "--no-deps", "--no-build-isolation", "--editable", checkout)
        configs = checkout / "hyperparams"
    command = ["-m", "rl_zoo3.train", "--algo", "pd", "--env", "CartPole-v1", "--eval-freq", "-1", "-n", "300"]
    params = ["-params", f"teacher:'{cartpole_teacher}'", "n_teacher_episodes:1"]
    output = run_python(tmp_path, *command, *params, python=fresh).stdout
    assert f"Loading hyperparameters from: {configs / 'pd.yml'}" in output
    assert "Saving to logs/pd/CartPole-v1_1" in output
    assert start() == "1 True False\n"

    pip("uninstall", "--yes", "sb3-distill")
    assert sorted(path.name for path in site_packages(fresh).iterdir()) == before
    assert start() == "0 False False\n"
