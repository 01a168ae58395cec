"""Lower bounds on the training problem, and the certificates made of them."""
