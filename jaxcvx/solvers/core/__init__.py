"""What all solvers share: the protocol, the loop and the driver that runs it, snapshots, callbacks, the solution."""
