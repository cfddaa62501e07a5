"""How training scales: the same training on several nodes, GPUs and batches, in tables and pictures."""
