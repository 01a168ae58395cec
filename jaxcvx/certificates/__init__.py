"""Lower bounds on the training problem, and certificates: how far a network can be from the optimum."""
