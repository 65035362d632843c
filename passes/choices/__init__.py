"""Choices: opening them, deciding them, moving their logits, and settling them."""
