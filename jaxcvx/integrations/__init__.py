"""Bridges to other libraries: leaves, each imported only when it is asked for."""
