"""Stress tests: what the service and the jobs promise, tried out as hard as one machine can, and told as a table.

    make stress                               # everything: about ten minutes
    python -m tests.stress --short bad-inputs # one trial, in its short form

A trial is a function that starts real processes, does them harm, and returns what came of it. Beside each defence
stands its control: the same harm with the defence taken out, which must be seen to hurt.
"""
