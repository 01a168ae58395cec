"""Derivatives of solutions."""
