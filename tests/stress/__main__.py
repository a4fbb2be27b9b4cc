"""`python -m tests.stress`: run the trials one after another and print their table."""

from __future__ import annotations

import argparse
import sys
import time

from tests.stress import (
    bad_inputs,
    jobs,
    large_uploads,
    overload,
    signals,
    slow_clients,
    soak,
    store_faults,
    surroundings,
)

TRIALS = {
    "bad-inputs": bad_inputs,
    "slow-clients": slow_clients,
    "large-uploads": large_uploads,
    "overload": overload,
    "signals": signals,
    "store-faults": store_faults,
    "surroundings": surroundings,
    "soak": soak,
    "jobs": jobs,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("trials", nargs="*", metavar="TRIAL", help=f"{', '.join(TRIALS)} (default: all)")
    parser.add_argument("--short", action="store_true", help="run the short forms")
    arguments = parser.parse_args()
    if unknown := set(arguments.trials) - set(TRIALS):
        parser.error(f"expected trials of {', '.join(TRIALS)}; found {', '.join(unknown)}")
    kept = True
    print(f"{'trial':32} {'tried':>10} {'survived':>10} {'lost':>8}  took")
    for name in arguments.trials or TRIALS:
        began = time.monotonic()
        result = TRIALS[name].trial(short=arguments.short)
        took = time.monotonic() - began
        survived = result.tried - result.lost
        print(f"{result.name:32} {result.tried:10,} {survived:10,} {result.lost:8,}  {took:.0f} s", flush=True)
        for what, found in result.measurements.items():
            print(f"  {what}: {found}")
        for fault in [*result.losses, *result.missed_bounds]:
            print(f"  FAILED  {fault}")
        kept = kept and not result.lost and not result.missed_bounds
        for control in TRIALS[name].controls():
            verdict = "fails, as expected" if control.failed else "DOES NOT FAIL"
            print(f"  {control.name}: {verdict}: {control.observed}", flush=True)
            kept = kept and control.failed
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
