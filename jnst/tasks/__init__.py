"""What can be made, one task in each file: compiled, on arrays. Reading, writing and printing are `api`'s and `cli`'s."""
