"""The package as users get it: ``python tests/supply/check.py [--tests] [--python PATH] [--lowest | --newest]``.

A wheel is built and installed, with the oldest dependencies that pyproject.toml admits or with the newest there are, in
an empty environment outside the checkout. There the demo on a small data set runs, a small typed project that uses the
package is type-checked and run, and, with ``--tests``, the whole test suite against the installed wheel.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONSUMER = pathlib.Path(__file__).parent / "consumer" / "consumer.py"
EXTRAS = "cli,estimators,flax"


def lowest(extras: str) -> list[str]:
    """The dependencies of the project and of its extras, each pinned at its lower bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted, found = list(project["dependencies"]), {}
    for extra in extras.split(","):
        wanted += project["optional-dependencies"][extra]
    for requirement in wanted:
        match = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement)
        if match:
            name, version = match.groups()
            found[name] = max(found.get(name, "0"), version, key=lambda v: tuple(map(int, v.split("."))))
    return [f"{name}=={version}" for name, version in found.items()]


def run(*command: object, cwd: pathlib.Path, expected: int = 0) -> str:
    """Output of a command that must end as expected."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, env=environment)
    if done.returncode != expected:
        sys.exit(f"{' '.join(map(str, command))}\nexit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def build(folder: pathlib.Path) -> pathlib.Path:
    """The wheel; it must hold the modules, the type marker and no tests."""
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("jaxcvx-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    modules = [str(path.relative_to(ROOT)) for path in (ROOT / "jaxcvx").rglob("*.py")]
    missing = {*modules, "jaxcvx/py.typed"} - set(names)
    foreign = [name for name in names if not name.startswith("jaxcvx")]
    if missing or foreign:
        sys.exit(f"the wheel misses {sorted(missing)} and holds {foreign}")
    return wheel


def check(python: str, pins: list[str], tests: bool) -> None:
    """Install in an empty environment and use."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        wheel = build(folder)
        home = folder / "environment"
        if python == sys.executable:
            venv.create(home, with_pip=True)
        else:
            run(python, "-m", "venv", home, cwd=folder)
        inside = home / "bin" / "python"
        extras = "test" if tests else EXTRAS
        run(inside, "-m", "pip", "install", "--quiet", f"{wheel}[{extras}]", "mypy", *pins, cwd=folder)
        shown = run(inside, "-m", "pip", "list", "--format=freeze", cwd=folder).splitlines()
        kept = [line for line in shown if re.match(r"(jax|jaxlib|numpy|scipy|optax|chex|flax|scikit-learn)==", line)]
        print(run(inside, "--version", cwd=folder).strip(), *kept, flush=True)
        where = run(inside, "-c", "import jaxcvx; print(jaxcvx.__file__)", cwd=folder).strip()
        assert where.startswith(str(home)), where
        run(home / "bin" / "jaxcvx", "train", "iris", "--out", folder / "demo", cwd=folder)
        written = sorted(path.name for path in (folder / "demo").iterdir())
        assert {"model.npz", "report.json"} <= set(written), written
        print("demo wrote", *written, flush=True)
        shutil.copy(CONSUMER, folder)
        strict = ("-m", "mypy", "--strict", "--config-file=", "--ignore-missing-imports", "consumer.py")
        print("mypy --strict:", run(inside, *strict, cwd=folder).strip())
        print("consumer:", run(inside, "consumer.py", cwd=folder).strip().splitlines()[-1], flush=True)
        if tests:
            for name in ("tests", "experiments", "benchmarks", "docs", "notebooks", "pyproject.toml", "README.md"):
                source = ROOT / name
                (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
            print(run(inside, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", cwd=folder)[-400:], flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="the interpreter to use")
    parser.add_argument("--tests", action="store_true", help="run the test suite too")
    versions = parser.add_mutually_exclusive_group()
    versions.add_argument("--lowest", action="store_true", help="the oldest dependencies only")
    versions.add_argument("--newest", action="store_true", help="the newest dependencies only")
    options = parser.parse_args()
    if not options.newest:
        print("lowest:")
        check(options.python, lowest(EXTRAS + ",test" if options.tests else EXTRAS), options.tests)
    if not options.lowest:
        print("newest:")
        check(options.python, [], options.tests)


if __name__ == "__main__":
    main()
