# SPDX-License-Identifier: BSD-2-Clause
import concurrent.futures, multiprocessing, os, pty, resource, signal, subprocess, sys, threading, time

reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.close(reading)
    os.write(writing, b"from the child %d" % (os.getppid() > 1))
    os._exit(11)
os.close(writing)
print(os.read(reading, 100), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
children = [os.fork() or os._exit(number) for number in range(8)]
print(sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in children))
try:
    os.wait()
except ChildProcessError as error:
    print(error)

for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT):
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), number)
        signal.pause()
    print(number.name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

run = subprocess.run(["sh", "-c", "cat; echo error >&2; exit 3"], input=b"through sh\n", capture_output=True)
print(run.returncode, run.stdout, run.stderr)
with subprocess.Popen([sys.executable, "-c", "import sys; print(sys.stdin.read()[::-1])"], stdin=subprocess.PIPE,
                      stdout=subprocess.PIPE, text=True, env={**os.environ, "X": "1"}) as process:
    print(process.communicate("reversed")[0])
try:
    subprocess.run(["sleep", "1000"], timeout=0.2)
except subprocess.TimeoutExpired as error:
    print("too long:", error.cmd)
try:
    subprocess.run(["/nonexistent"], cwd=".")
except FileNotFoundError as error:
    print(error)

def square(number):
    return number * number

context = multiprocessing.get_context("fork")
with context.Pool(3) as pool:
    print(sum(pool.map(square, range(1000))))
shared = context.Value("i", 0)
def add():
    for _ in range(500):
        with shared.get_lock():
            shared.value += 1
adders = [context.Process(target=add) for _ in range(4)]
for adder in adders:
    adder.start()
for adder in adders:
    adder.join()
print(shared.value, [adder.exitcode for adder in adders])

counter, lock, met = 0, threading.Lock(), threading.Barrier(8)
def count():
    global counter
    met.wait()
    for _ in range(2000):
        with lock:
            counter += 1
threads = [threading.Thread(target=count) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(counter, threading.active_count())
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    print(sum(pool.map(square, range(200))))
local = threading.local()
def own(value):
    local.value = value
    time.sleep(0.01)
    return local.value == value
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    print(all(pool.map(own, range(40))))

caught = []
signal.signal(signal.SIGALRM, lambda number, _: caught.append(number))
signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
while len(caught) < 5:
    signal.pause()
signal.setitimer(signal.ITIMER_REAL, 0)
print(set(caught))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
signal.signal(signal.SIGUSR1, lambda *_: caught.append("usr1"))
os.kill(os.getpid(), signal.SIGUSR1)
print(caught[-1] == "usr1", signal.sigpending())
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
print(caught[-1])
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
os.kill(os.getpid(), signal.SIGUSR2)
print(signal.sigwait({signal.SIGUSR2}).name)
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
thread = threading.Thread(target=lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM))
before = len(caught)
thread.start()
thread.join()
print(len(caught) - before)

child, terminal = pty.fork()
if child == 0:
    print(os.isatty(0), os.ttyname(0).startswith("/dev/pts/"), os.get_terminal_size())
    sys.stdout.flush()
    os._exit(0)
text = b""
try:
    while data := os.read(terminal, 1000):
        text += data
except OSError:
    pass
print(text, os.waitpid(child, 0)[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    files = [open("/dev/null") for _ in range(100)]
except OSError as error:
    print(error)
print(resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 1000)
print(os.environ["HOME"] == os.getcwd(), os.getpgrp() == os.getpid(), os.sched_getaffinity(0) != set())
print(sys.byteorder, sys.maxsize, os.path.exists(f"/proc/{os.getpid()}/status"), os.cpu_count() > 0)
sys.stdout.flush()
sys.exit(17)
