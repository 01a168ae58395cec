"""Module paths of earlier versions. Pickles and imports that name them still work.

A pickle names each class by its module. A finder at the end of ``sys.meta_path`` answers for the old names alone: it
gives a module that takes its attributes from the new ones.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from typing import Any

# An old name and the modules that hold its content now, all below jaxcvx.
_TABLE = """
certificates.beta certificates.beta_max
certificates.pricers pricing.oracles
certificates.relaxed pricing.semidefinite
checkpoint serialisation
diff numerics.implicit
diff.implicit numerics.implicit
keys numerics.validation
networks.training networks.objective
operators.arc_cosine numerics.arc_cosine
operators.convolution features.convolution
operators.features features.dense
operators.fold numerics.fold
operators.masked operators.cells
operators.noise numerics.noise
operators.patches features.patches
operators.precision numerics.precision
operators.pricing pricing.base
operators.pricing_cone pricing.spike_free
operators.pricing_exact pricing.faces
operators.pricing_multistart pricing.multistart
operators.pricing_sweep pricing.sweep
operators.projections proximal.polyhedral_cone
operators.prox proximal.norms
operators.psd proximal.psd_cone
operators.readout features.readout
operators.rounding numerics.rounding
operators.sphere numerics.sphere
problems.base problems.training losses.targets numerics.validation
problems.loss losses.base
problems.losses losses.entrywise
problems.low_rank_descent transforms.scaled_descent
problems.relu problems.training
problems.softmax losses.softmax
problems.weighted losses.weighted
progress callbacks.progress
resume callbacks.checkpoint
solvers.active_newton solvers.gated.active_set_newton
solvers.annealed_noise solvers.gradient.annealed_noise
solvers.atoms solvers.neurons.group_lasso
solvers.base solvers.core.protocol solvers.core.solution
solvers.callbacks solvers.core.callbacks
solvers.column_generation solvers.semi_infinite.column_generation
solvers.completely_positive solvers.copositive.reduced
solvers.cone_admm solvers.cone.admm
solvers.cone_newton solvers.cone.ssnal
solvers.cone_proximal solvers.cone.proximal_gradient
solvers.copositive_admm solvers.copositive.admm
solvers.copositive_interior solvers.copositive.interior_point
solvers.copositive_rounding solvers.copositive.rounding
solvers.cuts solvers.semi_infinite.master
solvers.cutting_plane solvers.semi_infinite.cutting_plane
solvers.driver solvers.core.driver solvers.core.loop solvers.core.memory_estimate
solvers.fista methods.fista
solvers.frank_wolfe solvers.semi_infinite.frank_wolfe
solvers.gated_newton solvers.gated.ssnal
solvers.gradient_descent solvers.gradient.descent
solvers.host solvers.core.host
solvers.interior_lasso methods.interior_point
solvers.lasso_newton methods.ssnal
solvers.loop solvers.core.loop
solvers.memory numerics.memory
solvers.newton_system numerics.conjugate_gradient
solvers.nuclear solvers.gated.nuclear
solvers.pool solvers.semi_infinite.pool
solvers.primal_dual solvers.gradient.primal_dual
solvers.proximal_gradient solvers.gated.proximal_gradient
solvers.refit solvers.neurons.refit solvers.neurons.rounding
solvers.scaling solvers.semi_infinite.scaling
solvers.smooth solvers.gradient.base
solvers.snapshot solvers.core.snapshot
solvers.soft_svd solvers.closed_form
solvers.summary solvers.core.report
solvers.unrolled solvers.gated.unrolled
solvers.working_set solvers.gated.working_set
"""
MOVED: dict[str, tuple[str, ...]] = {
    f"jaxcvx.{old}": tuple(f"jaxcvx.{name}" for name in new)
    for old, *new in (line.split() for line in _TABLE.strip().splitlines())
}


class _OldPaths(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and makes the modules of the table."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in MOVED:
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=fullname == "jaxcvx.diff")

    def exec_module(self, module: types.ModuleType) -> None:
        name = module.__name__

        def attribute(wanted: str) -> Any:
            for new in MOVED[name]:
                content = vars(importlib.import_module(new))
                if wanted in content and not wanted.startswith("__"):
                    return content[wanted]
            raise AttributeError(f"module {name!r} has no attribute {wanted!r}: it is now {', '.join(MOVED[name])}")

        module.__dict__["__getattr__"] = attribute


if not any(type(finder).__name__ == _OldPaths.__name__ for finder in sys.meta_path):
    sys.meta_path.append(_OldPaths())
