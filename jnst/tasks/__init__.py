"""What can be made, one task in each file: compiled, on arrays. Files and printing are `api`'s and `cli`'s."""
