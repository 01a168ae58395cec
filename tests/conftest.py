"""Precision of the tests (float64, except where a test asks for jax's default), and reproducible hypothesis."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax
import pytest
from hypothesis import settings

settings.register_profile("reproducible", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", deadline=None)  # pytest --hypothesis-profile=explore
settings.load_profile("reproducible")


# The longest cases, whose neighbours run the same code on other data: only with -m long.
LONG = (
    "test_benchmarks.py::test_peers[relu]",
    "test_working_set.py::test_many_cells_in_one_program_and_in_float32",
    "test_fine_pool.py::test_column_generation_in_float32_mode",
    "test_polish.py::test_polish_with_one_output_is_optimal",
    "test_spike_free.py::test_two_neurons_solve_spike_free_data[squared]",
    "test_convolutions_against_clarabel.py::test_the_global_optimum_of_a_pooled_network",
    "test_copositive_admm.py::test_certified_gap_on_sixty_points[0.1",
    "test_convolutions_against_clarabel.py::test_one_output_weight_per_position_is_bounded_e",
    "test_convolutions_against_clarabel.py::test_cone_program[features1-shared]",
    "test_convolutions_against_clarabel.py::test_cone_program[features2-per-output]",
    "test_convolutions_against_clarabel.py::test_gated_program[flatten]",
    "test_against_clarabel.py::test_cone_program_with_three_outputs[shape1",
    "test_against_clarabel.py::test_cone_program_with_one_output[shape1]",
    "test_against_clarabel.py::test_cone_program_with_one_output[shape2]",
    "test_frank_wolfe.py::test_line_search_and_the_radius_of_a_network",
    "test_polish.py::test_improves_or_keeps_adam_networks[1-12]",
    "test_polish.py::test_improves_or_keeps_adam_networks[3-8]",
    "test_copositive_admm.py::test_between_the_nuclear_norm_and_adam",
    "test_copositive_interior.py::test_against_clarabel[space",
    "test_copositive_interior.py::test_against_clarabel[wide",
    "test_semi_nmf.py::test_spike_free_data[1]",
    "test_semi_nmf.py::test_spike_free_data[2]",
    "test_spike_free.py::test_two_neurons_solve_spike_free_data[logistic]",
    "test_spike_free.py::test_two_neurons_solve_spike_free_data[hinge]",
    "test_cutting_plane_faces.py::test_agrees_with_the_other_global_solvers[1]",
    "test_pricers.py::test_all_agree_in_the_plane[1]",
    "test_pricers.py::test_all_agree_in_the_plane[3]",
    "test_float32.py::test_cone_program[3]",
    "test_cone_admm.py::test_complete_cells_give_the_global_optimum[gaussian]",
    "test_cone_admm.py::test_complete_cells_give_the_global_optimum[rank two]",
    "test_cone_admm.py::test_complete_cells_give_the_global_optimum[line with bias]",
    "test_sklearn.py::test_solver_gives_the_global_optimum",
    "test_annealed_noise.py::test_trains_relu_networks_better_than_adam",
    "test_annealed_noise.py::test_noise_has_to_be_annealed",
    "test_shortest_path.py::test_every_bound_holds_along_gradient_descent[one",
    "test_column_generation.py::test_scalar_optimum_is_clarabels[3]",
    "test_column_generation.py::test_multistart_goes_on_below_the_rounding_of_single_precision",
    "test_column_generation.py::test_cells_are_enumerated_where_they_are_few_and_bias_is_a_feature",
    "test_against_clarabel.py::test_cone_program_with_three_outputs[shape0-per-output]",
    "test_against_clarabel.py::test_gated_program[shape1-1]",
    "test_against_clarabel.py::test_gated_program[shape2-1]",
    "test_convolutions_against_clarabel.py::test_gated_program[pool]",
    "test_convolutions_against_clarabel.py::test_bounds_without_cells[flatten]",
    "test_alternating.py::test_with_a_relu_head",
    "test_proximal_gradient.py::test_tight_tolerances_for_other_smooth_losses[logistic]",
    "test_polish.py::test_other_losses_never_worse[hinge]",
    "test_cone_admm.py::test_complete_cells_give_the_global_optimum[spiral]",
    "test_priced.py::test_bounds_by_each_pricer[multistart]",
    "test_certify.py::test_several_outputs_exactly_and_by_a_relaxation[softmax]",
    "test_gated.py::test_inverse_hessian_is_the_inverse[2]",
    "test_fitting.py::test_beta_max_is_the_enumerated_one[2]",
    "test_teacher_cnn.py::test_loss_and_gradient_against_sampling[1.0]",
    "test_cone_newton.py::test_alone_it_reaches_clarabels_optimum_at_a_feasible_point[2-per-output]",
    "test_cutting_plane.py::test_losses_and_biases_against_gradient_descent_and_certify[logistic-features2]",
    "test_recovery.py::test_gated_networks_become_relu_networks_with_the_same_predictions[3-features0]",
    "test_patch_features.py::test_features_equal_loops[2-2-1]",
    "test_main.py::test_regression_predicts_in_the_targets_units",
    "test_column_generation.py::test_networks_as_starts_never_come_back_worse",
    "test_column_generation.py::test_scalar_optimum_is_clarabels[2]",
    "test_column_generation.py::test_reference_optima[spiral 12]",
    "test_column_generation.py::test_units_do_not_matter",
    "test_column_generation.py::test_float32_ends_at_its_resolution",
    "test_against_clarabel.py::test_gated_program[shape1-3]",
    "test_against_clarabel.py::test_cone_program_of_other_losses[softmax]",
    "test_against_clarabel.py::test_cone_program_of_other_losses[huber]",
    "test_convolutions_against_clarabel.py::test_bounds_without_cells[pool]",
    "test_copositive_admm.py::test_strictly_below_training_with_many_facets",
    "test_copositive_admm.py::test_float32",
    "test_polish.py::test_improve_hidden_keeps_neurons_in_their_cells",
    "test_polish.py::test_unbalanced_network_is_at_least_balanced",
    "test_primal_dual.py::test_slack_bounds_have_zero_multipliers_and_the_matrix_is_recovered",
    "test_proximal_gradient.py::test_gated_network_has_the_same_predictions[vector]",
    "test_proximal_gradient.py::test_both_phases_agree",
    "test_closed_forms.py::test_whitened_formulas_are_what_the_solvers_find[loss0-0.3]",
    "test_priced.py::test_a_skip_connection_that_the_network_does_not_use_still_counts",
    "test_priced.py::test_bounds_by_each_pricer[branch]",
    "test_semi_nmf.py::test_rank_one_data_of_one_sign",
    "test_recovery.py::test_no_certificate_where_something_smaller_fits",
    "test_landscape.py::test_smallest_eigenvalue_is_that_of_the_dense_hessian",
    "test_teacher_cnn.py::test_float32_gradient_next_to_the_spurious_point",
    "test_matrix_sensing.py::test_rectangular_and_matrix_free_sensing_agree",
    "test_annealed_noise.py::test_minibatches_use_the_samples",
    "test_nuclear.py::test_one_output_makes_the_two_norms_equal",
    "test_implicit.py::test_bias_and_skip_connection",
    "test_cutting_plane_faces.py::test_several_outputs",
    "test_line.py::test_classifier_is_the_linear_programs_and_the_cutting_planes",
    "test_low_rank_descent.py::test_conjugate_directions_beat_the_steepest_ones",
    "test_cutting_plane_faces.py::test_free_biases_in_the_plane_by_faces",
    "test_interior_lasso.py::test_optimum_is_clarabels[shape0-True-hinge]",
    "test_against_clarabel.py::test_bias_and_skip_connection",
    "test_implicit.py::test_jaxopt_agrees",
    "test_implicit.py::test_other_solvers_refuse[CopositiveADMM",
)


# Where every case compiles programs of its own: of a test with many cases the first few, the others with -m long.
THINNED = (
    *("analysis", "arrangements", "certificates", "diff", "integrations"),
    *("networks", "operators", "oracle", "solvers"),
)
CASES = 2
REFUSALS = ("named", "names", "refuse", "error", "bad", "wrong", "invalid")  # cheap, and each case is another fault


@pytest.hookimpl(tryfirst=True)  # before -m is looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    seen: dict[str, int] = {}
    for item in items:
        test = item.nodeid.split("[")[0]
        seen[test] = seen.get(test, 0) + 1
        thinned = item.path.parent.name in THINNED and not any(word in item.name for word in REFUSALS)
        if any(name in item.nodeid for name in LONG) or (thinned and seen[test] > CASES):
            item.add_marker(pytest.mark.long)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "float32: run with jax's default precision instead of float64")


@pytest.fixture(autouse=True)
def precision(request: pytest.FixtureRequest) -> Iterator[None]:
    """Float64 inside every test. Fixtures of wider scope run outside of it: enter the context there as well.

    On accelerators products have full precision, which the public functions see to and the inner ones rely on.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.enable_x64(request.node.get_closest_marker("float32") is None))
        if jax.default_backend() != "cpu":
            stack.enter_context(jax.default_matmul_precision("highest"))
        yield


@pytest.fixture(autouse=True, scope="module")
def compiled_programs_are_dropped() -> Iterator[None]:
    """Every compiled program holds memory maps, of which a process may have 65530: a whole run would need more."""
    yield
    jax.clear_caches()
