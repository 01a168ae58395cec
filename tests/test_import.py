"""Importing the package stays light, and its public names exist."""

import subprocess
import sys

import jaxcvx


def test_heavy_modules_are_imported_where_used_only():
    code = "import sys, jaxcvx; print(' '.join(sorted(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "jaxcvx.solvers.core.driver" in loaded
    for name in ("jaxopt", "optax", "chex", "scipy", "sklearn", "matplotlib", "rich", "pandas", "flax", "cvxpy"):
        assert name not in loaded


def test_import_leaves_the_precision_alone():
    code = "import jax; before = jax.config.jax_enable_x64; import jaxcvx; print(before == jax.config.jax_enable_x64)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "True"


def test_every_public_name_exists():
    assert jaxcvx.__all__ == sorted(jaxcvx.__all__, key=lambda name: (not name[0].isupper(), name))
    for name in jaxcvx.__all__:
        assert getattr(jaxcvx, name) is not None
