"""The wheel holds all that it needs: installed elsewhere, without the repository, it runs `tally demo`.

Its dependencies are borrowed from the environment that runs the tests, so nothing is downloaded; our own packages are
not, because the editable install there is a hook that a borrowed folder does not run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from command import ROOT

PACKAGES = ("metering", "billing", "reports", "migrations", "adapters")
EXAMPLES = {"examples": "tallygrid_examples"}  # the folder's name in the repository, and in the wheel
OTHERS = ("pyproject.toml", "README.md", "LICENSE")
TOO_LONG_S = 300


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TOO_LONG_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def source_files() -> set[str]:
    """Every file of our packages, as the wheel should name it; a folder with a pyproject.toml is a distribution apart."""
    names = set()
    for folder in (*PACKAGES, *EXAMPLES):
        apart = [path.parent for path in (ROOT / folder).rglob("pyproject.toml")]
        for path in (ROOT / folder).rglob("*"):
            ours = not any(path.is_relative_to(other) for other in apart)
            if ours and path.is_file() and "__pycache__" not in path.parts:
                inside = path.relative_to(ROOT).as_posix()
                names.add(inside.replace(folder, EXAMPLES.get(folder, folder), 1))
    return names


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, so that nothing is left in the repository."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in (*PACKAGES, *EXAMPLES):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in OTHERS:
        shutil.copy(ROOT / name, source / name)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source, folder=source)
    [built] = out.glob("*.whl")
    return built


def test_pyproject_names_every_package_of_the_tree() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]

    there = {Path(name).parent.as_posix().replace("/", ".") for name in source_files()}
    assert set(declared["packages"]) == there


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        held = {name for name in packed.namelist() if ".dist-info/" not in name}

    assert held == source_files()


def test_an_installed_wheel_runs_the_demo_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    environment, empty = tmp_path / "environment", tmp_path / "empty"
    empty.mkdir()
    venv.create(environment, with_pip=False)
    python, scripts = environment / "bin" / "python", environment / "bin"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        wheel,
        folder=empty,
    )
    ours = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=empty).strip()
    )
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (ours / "borrowed.pth").write_text("\n".join(sorted(borrowed)))

    imported = run(
        python, "-c", "import metering, adapters; print(metering.__path__, adapters.__path__)", folder=empty
    )
    assert str(ROOT) not in imported
    demo = json.loads(run(scripts / "tally", "demo", "--json", folder=empty, TMPDIR=str(tmp_path)))

    assert demo["difference"] == {"prompt_tokens": 0, "output_tokens": 0}
    assert len(demo["invoices"]) == 3
    assert all(Path(path).stat().st_size > 0 for path in demo["files"])
    assert list(empty.iterdir()) == []
