"""Training: a recipe (YAML) names a task; the loop runs it for so many steps or minutes.

`recipe` reads and checks recipes and imports no torch; `task` is what a task promises; `loop` is
the training loop; the rest are its parts: `optim`, `ema`, `checkpoint`, `distributed`, `metrics`
and `plot`. The tasks themselves are in `vidgen.train.tasks`.
"""
