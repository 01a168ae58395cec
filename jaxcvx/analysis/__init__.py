"""Analyses built on solvers through their protocol only."""
