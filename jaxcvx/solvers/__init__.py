"""Solvers: frozen dataclasses of hyper-parameters behind one protocol, and the driver that runs them."""
