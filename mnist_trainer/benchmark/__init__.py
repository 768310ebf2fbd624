"""How fast this program is, beside the tutorial's loop, PyTorch and JAX, and what else it costs; the command `benchmark`.

`contest` has the contenders run in turn and `report` says what came of it; `resources` measures memory, start-up, checkpoints
and data loading. A contender is a module that is readable alone: `tutorial`, `ours`, `torch_eager`, `jax_jitted`. It
lives in a process of its own, which `worker` is from within and `processes` from without.
"""
