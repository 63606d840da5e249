"""One trainer for every objective, its averages, its checkpoints and its logs.

Nothing is imported here: `fewstep.training.config` must stay cheap, for the command line's help.
"""
