"""Bridges to flax and scikit-learn. No other part imports them; each is imported on first use."""
