"""Puts in the wheel what setup.cfg cannot name; everything else is declared there."""

import os
import re
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildPy(build_py):
    """Also builds what the package needs but does not contain."""

    def run(self) -> None:
        """Add the start-up files, and to a wheel the default configurations and studies too."""
        super().run()
        # The interpreter reads start-up files in site-packages itself alone, never in a package. An editable wheel
        # leaves the package where it is, so there they go straight into the wheel.
        root = Path(self.get_finalized_command("install").install_lib if self.editable_mode else self.build_lib)
        self.mkpath(str(root))
        for name in ("sb3_distill.pth", "sb3_distill.start"):
            self.copy_file(name, str(root))
        # They lie at the top of the repository, as in the Zoo; an editable install finds them there.
        if not self.editable_mode:
            for folder in ("hyperparams", "studies"):
                self.mkpath(str(root / "sb3_distill" / folder))
                for file in sorted(Path(folder).glob("*.yml")):
                    self.copy_file(str(file), str(root / "sb3_distill" / folder))


def published() -> dict[str, Any]:
    """What a package index shows: addresses, and a README whose links lead there. A release workflow knows them."""
    repository = os.environ.get("GITHUB_REPOSITORY")
    if repository is None:
        return {}
    home, ref = f"{os.environ['GITHUB_SERVER_URL']}/{repository}", os.environ["GITHUB_REF_NAME"]
    readme = Path("README.md").read_text()
    readme = re.sub(r"(!\[[^\]]*\]\()(?!https?:)", rf"\g<1>{home}/raw/{ref}/", readme)
    readme = re.sub(r"((?<!!)\[[^\]]*\]\()(?!https?:|#)", rf"\g<1>{home}/blob/{ref}/", readme)
    urls = {"Source": home, "Documentation": f"{home}/tree/{ref}/docs", "Changelog": f"{home}/blob/{ref}/CHANGELOG.md"}
    return {"url": home, "project_urls": urls, "long_description": readme}


setup(cmdclass={"build_py": BuildPy}, **published())
