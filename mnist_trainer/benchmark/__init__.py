"""The speed of this program compared with the tutorial's loop, PyTorch and JAX; the command `benchmark`.

`session` is one call of the command: it checks the request, runs the measurements and writes the results. `implementations`
lists what can be compared, `rounds` measures it, `phases` measures the parts of an iteration, and `report` makes the table and
the record. Each implementation is a self-contained module: `tutorial`, `ours`, `torch_eager`, `jax_jitted`. Implementations and
`phases` run in worker processes: `worker` is the code inside such a process, and `processes` starts and ends it.
"""
