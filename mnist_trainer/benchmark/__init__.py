"""How fast this program is, beside the tutorial's loop, PyTorch and JAX; the command `benchmark`.

`session` is one call of the command: it checks the request, has everything measured, and keeps the results. `contest` has the
implementations run in turn and `report` says what came of it. `phases` measures where an iteration's time goes. An
implementation is a module that is readable alone: `tutorial`, `ours`, `torch_eager`, `jax_jitted`. It lives, as `phases` does,
in a process of its own, which `worker` is from within and `processes` from without.
"""
