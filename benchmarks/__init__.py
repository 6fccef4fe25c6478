"""Scripts that measure jnst. `bin/bench` starts `bench.py`; the others are started by themselves."""
