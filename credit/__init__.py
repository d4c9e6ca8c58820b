"""The science: credit-assignment methods in PyTorch, knowing nothing of HTTP, queues or databases."""

__version__ = "0.1.0"
