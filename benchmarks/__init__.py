"""Timings against peers: ``python -m benchmarks [NAME ...]`` prints tables and writes JSON."""

from __future__ import annotations
