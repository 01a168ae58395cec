"""jaxcvx: two-layer ReLU networks trained to certified global optimality."""

from jaxcvx import errors as errors
from jaxcvx.analysis.path import regularization_path
from jaxcvx.arrangements.cells import Arrangements, arrangements_of, merge_arrangements
from jaxcvx.arrangements.enumerate import enumerate_arrangements
from jaxcvx.arrangements.sample import sample_arrangements
from jaxcvx.certificates.beta import beta_max
from jaxcvx.certificates.certificate import Certificate, certify
from jaxcvx.checkpoint import load, save
from jaxcvx.errors import InvalidInputError, InvalidTypeError, JaxcvxError, TooManyArrangements
from jaxcvx.networks.network import Network, balance, merge_parallel, prune, training_objective
from jaxcvx.networks.recovery import gated_to_relu
from jaxcvx.operators.features import Dense
from jaxcvx.problems.base import make_problem
from jaxcvx.problems.losses import Hinge, Huber, Logistic, SoftmaxCrossEntropy, Squared
from jaxcvx.problems.relu import Problem
from jaxcvx.solvers.base import Solution, Status
from jaxcvx.solvers.cone_admm import ConeADMM
from jaxcvx.solvers.copositive_admm import CopositiveADMM
from jaxcvx.solvers.driver import StepInfo, solve
from jaxcvx.solvers.gradient_descent import GradientDescent
from jaxcvx.solvers.nuclear import NuclearProximalGradient
from jaxcvx.solvers.polish import polish
from jaxcvx.solvers.proximal_gradient import ProximalGradient

__all__ = [
    "Arrangements",
    "Certificate",
    "ConeADMM",
    "CopositiveADMM",
    "Dense",
    "GradientDescent",
    "Hinge",
    "Huber",
    "InvalidInputError",
    "InvalidTypeError",
    "JaxcvxError",
    "Logistic",
    "Network",
    "NuclearProximalGradient",
    "Problem",
    "ProximalGradient",
    "SoftmaxCrossEntropy",
    "Solution",
    "Squared",
    "Status",
    "StepInfo",
    "TooManyArrangements",
    "arrangements_of",
    "balance",
    "beta_max",
    "certify",
    "enumerate_arrangements",
    "errors",
    "gated_to_relu",
    "load",
    "make_problem",
    "merge_arrangements",
    "merge_parallel",
    "polish",
    "prune",
    "regularization_path",
    "sample_arrangements",
    "save",
    "solve",
    "training_objective",
]

__version__ = "0.1.0"
