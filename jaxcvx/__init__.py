"""jaxcvx: two-layer ReLU networks trained to certified global optimality."""

from jaxcvx import _methods as _methods
from jaxcvx import _moved as _moved
from jaxcvx import errors as errors
from jaxcvx.analysis.closed_forms import rank_one_solution, whitened_solution
from jaxcvx.analysis.cross_validation import CrossValidation, cross_validate
from jaxcvx.analysis.extreme_points import bias_intervals, residual_neurons, vertex_network
from jaxcvx.analysis.jacobian import jacobian_spectrum
from jaxcvx.analysis.landscape import (
    half_rip_counterexample,
    isometry_constant,
    restricted_curvature,
    second_order,
)
from jaxcvx.analysis.line import l1_classifier, line_kernel, line_neurons, spline_rnorm
from jaxcvx.analysis.patch_features import PatchFeatures, fit_patch_features
from jaxcvx.analysis.path import regularization_path
from jaxcvx.analysis.recovery import RecoveryCertificate, recovery_certificate
from jaxcvx.analysis.semi_nmf import semi_nmf
from jaxcvx.analysis.shortest_path import PathReport, path_report
from jaxcvx.analysis.spike_free import is_spike_free, spike_free_solution, spike_free_witness
from jaxcvx.analysis.trajectory import trajectory
from jaxcvx.analysis.whitening import fit_whitening
from jaxcvx.arrangements.cells import Arrangements, arrangements_of, merge_arrangements
from jaxcvx.arrangements.enumerate import enumerate_arrangements
from jaxcvx.arrangements.filters import restrict_filters
from jaxcvx.arrangements.sample import sample_arrangements
from jaxcvx.callbacks.checkpoint import Checkpoint
from jaxcvx.callbacks.progress import Progress
from jaxcvx.certificates.beta_max import beta_max
from jaxcvx.certificates.certificate import Certificate
from jaxcvx.certificates.certify import certify
from jaxcvx.errors import (
    InvalidInputError,
    InvalidTypeError,
    JaxcvxError,
    NotEnoughMemory,
    TooManyArrangements,
)
from jaxcvx.features.convolution import ConvFlatten, ConvPool
from jaxcvx.features.dense import Dense, Features, FreeBias
from jaxcvx.losses.base import Loss
from jaxcvx.losses.entrywise import Hinge, Huber, Interpolation, Logistic, Squared
from jaxcvx.losses.softmax import SoftmaxCrossEntropy
from jaxcvx.networks.network import Network, balance, merge_parallel, prune, training_objective
from jaxcvx.networks.recovery import gated_to_relu
from jaxcvx.penalties.base import Penalty
from jaxcvx.penalties.cones import ConeGroups
from jaxcvx.penalties.groups import ColumnGroups, FrobeniusGroups
from jaxcvx.penalties.nuclear import NuclearNorm
from jaxcvx.problems.least_squares import LeastSquares
from jaxcvx.problems.low_rank import LowRankLoss, LowRankProblem
from jaxcvx.problems.matrix_completion import MatrixCompletion, OneBitCompletion
from jaxcvx.problems.matrix_sensing import MatrixSensing
from jaxcvx.problems.teacher_cnn import TeacherCNN
from jaxcvx.problems.training import Problem, make_problem
from jaxcvx.serialisation import load, save
from jaxcvx.solvers.closed_form import SoftThresholdedSVD
from jaxcvx.solvers.cone.admm import ConeADMM
from jaxcvx.solvers.copositive.admm import CopositiveADMM
from jaxcvx.solvers.core.callbacks import Callback
from jaxcvx.solvers.core.driver import solve
from jaxcvx.solvers.core.memory_estimate import memory_estimate
from jaxcvx.solvers.core.protocol import HostSolver, Solver
from jaxcvx.solvers.core.solution import Outcome, Parts, Solution, Status, StepInfo
from jaxcvx.solvers.gated.accelerated import GatedGradient
from jaxcvx.solvers.gated.nuclear import NuclearProximalGradient
from jaxcvx.solvers.gated.proximal_gradient import ProximalGradient
from jaxcvx.solvers.gated.unrolled import unrolled_params
from jaxcvx.solvers.gradient.annealed_noise import AnnealedNoise
from jaxcvx.solvers.gradient.descent import GradientDescent
from jaxcvx.solvers.gradient.jaxopt import Jaxopt
from jaxcvx.solvers.gradient.primal_dual import PrimalDual
from jaxcvx.solvers.improve import improve
from jaxcvx.solvers.polish import polish
from jaxcvx.solvers.semi_infinite.column_generation import ColumnGeneration
from jaxcvx.solvers.semi_infinite.cutting_plane import CuttingPlane
from jaxcvx.solvers.semi_infinite.frank_wolfe import FrankWolfe
from jaxcvx.transforms.gradient_noise import annealed_gradient_noise, langevin
from jaxcvx.transforms.noise_annealed import noise_annealed_gd
from jaxcvx.transforms.perturb import perturb_iterates
from jaxcvx.transforms.schedules import epochwise_geometric
from jaxcvx.transforms.sphere import riemannian_sphere

__all__ = [
    "AnnealedNoise",
    "Arrangements",
    "Callback",
    "Certificate",
    "Checkpoint",
    "ColumnGeneration",
    "ColumnGroups",
    "ConeADMM",
    "ConeGroups",
    "ConvFlatten",
    "ConvPool",
    "CopositiveADMM",
    "CrossValidation",
    "CuttingPlane",
    "Dense",
    "Features",
    "FrankWolfe",
    "FreeBias",
    "FrobeniusGroups",
    "GatedGradient",
    "GradientDescent",
    "Hinge",
    "HostSolver",
    "Huber",
    "Interpolation",
    "InvalidInputError",
    "InvalidTypeError",
    "JaxcvxError",
    "Jaxopt",
    "LeastSquares",
    "Logistic",
    "Loss",
    "LowRankLoss",
    "LowRankProblem",
    "MatrixCompletion",
    "MatrixSensing",
    "Network",
    "NotEnoughMemory",
    "NuclearNorm",
    "NuclearProximalGradient",
    "OneBitCompletion",
    "Outcome",
    "Parts",
    "PatchFeatures",
    "PathReport",
    "Penalty",
    "PrimalDual",
    "Problem",
    "Progress",
    "ProximalGradient",
    "RecoveryCertificate",
    "SoftThresholdedSVD",
    "SoftmaxCrossEntropy",
    "Solution",
    "Solver",
    "Squared",
    "Status",
    "StepInfo",
    "TeacherCNN",
    "TooManyArrangements",
    "annealed_gradient_noise",
    "arrangements_of",
    "balance",
    "beta_max",
    "bias_intervals",
    "certify",
    "cross_validate",
    "enumerate_arrangements",
    "epochwise_geometric",
    "errors",
    "fit_patch_features",
    "fit_whitening",
    "gated_to_relu",
    "half_rip_counterexample",
    "improve",
    "is_spike_free",
    "isometry_constant",
    "jacobian_spectrum",
    "l1_classifier",
    "langevin",
    "line_kernel",
    "line_neurons",
    "load",
    "make_problem",
    "memory_estimate",
    "merge_arrangements",
    "merge_parallel",
    "noise_annealed_gd",
    "path_report",
    "perturb_iterates",
    "polish",
    "prune",
    "rank_one_solution",
    "recovery_certificate",
    "regularization_path",
    "residual_neurons",
    "restrict_filters",
    "restricted_curvature",
    "riemannian_sphere",
    "sample_arrangements",
    "save",
    "second_order",
    "semi_nmf",
    "solve",
    "spike_free_solution",
    "spike_free_witness",
    "spline_rnorm",
    "training_objective",
    "trajectory",
    "unrolled_params",
    "vertex_network",
    "whitened_solution",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Submodules imported on first use; ``jaxcvx.estimators`` and ``jaxcvx.flax`` need scikit-learn and flax."""
    if name in ("estimators", "flax", "parallel", "plots", "torch"):
        import importlib

        return importlib.import_module(f"jaxcvx.{name}")
    raise AttributeError(f"module 'jaxcvx' has no attribute {name!r}")
