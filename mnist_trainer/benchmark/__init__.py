"""The speed of this program beside the tutorial's loop, PyTorch and JAX; the command `benchmark`.

`session` is one call of the command: it checks the request, has everything measured, and writes the results. `implementations`
lists what is compared, `rounds` measures it, `phases` measures the parts of an iteration, and `report` makes table and record.
An implementation is a module that is readable alone: `tutorial`, `ours`, `torch_eager`, `jax_jitted`. It runs in a process of
its own, as `phases` does: `worker` is that process from within, `processes` from without.
"""
