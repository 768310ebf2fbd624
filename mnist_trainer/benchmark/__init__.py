"""How fast this program is, beside the tutorial's loop, PyTorch and JAX, and what else it costs; the command `benchmark`.

`session` is one call of the command: it checks the request, has everything measured, and keeps the results. `contest` has the
contenders run in turn and `report` says what came of it. `resources` measures memory, start-up, checkpoints, data loading and
graphs, the ways to compute the network; for what needs this program's own training it asks `costs`. A contender is a module
that is readable alone: `tutorial`, `ours`, `torch_eager`, `jax_jitted`. It lives, as `costs` does, in a process of its own,
which `worker` is from within and `processes` from without.
"""
