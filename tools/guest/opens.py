# SPDX-License-Identifier: BSD-2-Clause
"""How long it takes to open files that somebody looks at first (docs/leverage-files.md): for tests and for the
benchmark."""

import array
import os
import shutil
import time
from pathlib import Path


def settled(path):
    """Waits until a file is old enough for a verdict on it to be kept."""
    time.sleep(max(0, os.stat(path).st_ctime + 0.06 - time.time()))
    return path


def measure(path, fresh=200, cached=5000, parallel=8, size=2048, settle=lambda folder: time.sleep(0.2)):
    """What opens below a path that is held cost: fresh files a second, each read once by one of `parallel` processes;
    kept ones a second, by one process, and one beside the path; and what the former takes longer than the latter, in
    microseconds (p50, p99). `path` is left as it was. `settle` waits until a new folder is held, too."""
    folder, beside = Path(path, "measured"), Path(path, "..", "measured")
    folder.mkdir()
    beside.mkdir()
    try:
        settle(folder)
        names = [str(folder / f"file{i}") for i in range(fresh)]
        for name in [*names, str(beside / "file")]:
            Path(name).write_bytes(os.urandom(size))
        settled(names[-1])
        began = time.monotonic()
        in_processes([names[i::parallel] for i in range(parallel)], lambda name: Path(name).read_bytes())
        fresh_s = time.monotonic() - began
        times = timed_opens(names, cached)
        outside = timed_opens([str(beside / "file")], cached)
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(beside)
    return {"fresh": fresh / fresh_s, "cached": cached / sum(times), "beside": cached / sum(outside),
            **{f"latency_p{part}": (times[cached * part // 100] - outside[cached * part // 100]) * 1e6
               for part in (50, 99)}}


def in_processes(groups, function):
    """Calls a function with each of the members of a group, each group in a process of its own."""
    children = []
    for group in groups:
        if (pid := os.fork()) == 0:
            try:
                for member in group:
                    function(member)
                os._exit(0)  # pylint: disable=protected-access
            finally:
                os._exit(1)  # pylint: disable=protected-access
        children.append(pid)
    if any([os.waitpid(pid, 0)[1] for pid in children]):
        raise OSError("a process could not do what it was to")


def timed_opens(names, count):
    """How long opens take in another process, in seconds, the shortest first."""
    ours, theirs = os.pipe()
    if (pid := os.fork()) == 0:
        times = array.array("d")
        for i in range(count):
            began = time.perf_counter()
            fd = os.open(names[i % len(names)], os.O_RDONLY)
            times.append(time.perf_counter() - began)
            os.close(fd)
        with os.fdopen(theirs, "wb") as out:
            out.write(times.tobytes())
        os._exit(0)  # pylint: disable=protected-access
    os.close(theirs)
    with os.fdopen(ours, "rb") as data:
        times = array.array("d", data.read())
    os.waitpid(pid, 0)
    return sorted(times)
