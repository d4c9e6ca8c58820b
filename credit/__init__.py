"""The science: credit-assignment methods in PyTorch, knowing nothing of HTTP, queues or databases."""
