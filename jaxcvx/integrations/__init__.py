"""Bridges to flax, scikit-learn and torch. No other part imports them; each is imported on first use."""
