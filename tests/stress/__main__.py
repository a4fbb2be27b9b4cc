"""`python -m tests.stress`: the trials, one after another, and their table."""

from __future__ import annotations

import argparse
import sys
import time

from tests.stress import bad_inputs, jobs, overload, signals, slow_clients, soak, store_faults

TRIALS = {
    "bad-inputs": bad_inputs,
    "slow-clients": slow_clients,
    "overload": overload,
    "signals": signals,
    "store-faults": store_faults,
    "soak": soak,
    "jobs": jobs,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("trials", nargs="*", metavar="TRIAL", help=f"of {', '.join(TRIALS)}; all, if none is named")
    parser.add_argument("--short", action="store_true", help="fewer of everything")
    arguments = parser.parse_args()
    if unknown := set(arguments.trials) - set(TRIALS):
        parser.error(f"expected some of {', '.join(TRIALS)}; found {', '.join(unknown)}")
    kept = True
    print(f"{'trial':32} {'tried':>10} {'survived':>10} {'lost':>8}  took")
    for name in arguments.trials or TRIALS:
        began = time.monotonic()
        outcome = TRIALS[name].trial(short=arguments.short)
        took = time.monotonic() - began
        survived = outcome.tried - outcome.lost
        print(f"{outcome.name:32} {outcome.tried:10,} {survived:10,} {outcome.lost:8,}  {took:.0f} s", flush=True)
        for what, found in outcome.figures.items():
            print(f"  {what}: {found}")
        for fault in [*outcome.faults, *outcome.missed]:
            print(f"  NOT KEPT  {fault}")
        kept = kept and not outcome.lost and not outcome.missed
        for control in TRIALS[name].controls():
            verdict = "seen to fail" if control.hurt else "NOT SEEN TO FAIL"
            print(f"  {control.what}: {verdict}: {control.seen}", flush=True)
            kept = kept and control.hurt
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
