"""Stress tests: what the service and the training jobs promise, tested as hard as one machine can, printed as a table.

    make stress                               # everything: about ten minutes
    python -m tests.stress --short bad-inputs # one trial in its short form

A trial starts real processes, attacks them, and returns what happened. For each defence there is a control: the same
attack with the defence removed, which must do damage.
"""
