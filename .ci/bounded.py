"""Runs a command and fails when it takes too long: python3 bounded.py SECONDS NAME COMMAND...

What counts is time on the clock, unless the machine is busy with other things: then it is the processors' time.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time


def main() -> int:
    limit, name, command = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
    busy = os.getloadavg()[0] > (os.cpu_count() or 1)
    start = time.monotonic()
    status = subprocess.call(command)
    clock = time.monotonic() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    print(f"{name:<22} {clock:.0f} s, {cpu:.0f} s of them on a processor" + " (the machine is busy)" * busy)
    if status == 0 and (cpu if busy else clock) >= limit:
        print(f"{name}: not in {limit:.0f} s")
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
