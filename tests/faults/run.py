"""Faults at random: `python -X dev -W error::ResourceWarning tests/faults/run.py KIND...`

interrupts: Ctrl-C in one thread, at every place in turn where CPython looks for signals.
signals: Ctrl-C in the main thread while others use the same clients.
threads: threads that send, receive, close, redirect and drop shared clients.
loop: the same on an event loop, with cancelled tasks.

Prints its seed; `--seed` makes the same choices again (the scheduler's are its own). 1 when anything was found.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time

from checks import Violations


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="+", choices=["interrupts", "signals", "threads", "loop"], metavar="KIND")
    parser.add_argument("--seed", default=f"{random.SystemRandom().getrandbits(32):08x}")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each kind")
    parser.add_argument("--round", type=float, default=2.0, help="seconds of one round of threads or tasks")
    parser.add_argument("--at", type=int, help="only this round, or this place")
    parser.add_argument("--scenario", help="of interrupts, only this one")
    wanted = parser.parse_args()
    # a shell starts what runs in the background with it ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print(f"seed {wanted.seed}", flush=True)
    violations = Violations()
    for kind in wanted.kinds:
        begun = time.monotonic()
        if kind == "interrupts":
            from interrupts import interrupts

            what = interrupts(violations, wanted.seed, wanted.seconds, wanted.scenario, wanted.at)
        else:
            from torture import torture

            what = torture(kind, violations, wanted.seed, wanted.seconds, wanted.round, wanted.at)
        print(f"{kind}: {what} in {time.monotonic() - begun:.0f} s", flush=True)
    for doing, n in sorted(violations.calls.items()):
        print(f"{n:8} {doing}, {violations.failed[doing]} with an error")
    for found, n in violations.seen.most_common():
        print(f"{n:6} x {found}")
    print(f"{violations.total} violations")
    return 1 if violations.total else 0


if __name__ == "__main__":
    sys.exit(main())
