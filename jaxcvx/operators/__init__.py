"""Linear operators of the convex programs, and the projections and prox that go with them."""
