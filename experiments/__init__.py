"""One script per claim of "Vector-output ReLU neural network problems are copositive programs" (2021)."""
