# SPDX-License-Identifier: BSD-2-Clause
import ctypes, ctypes.util, gc, sqlite3, sys, weakref

libc = ctypes.CDLL("libc.so.6", use_errno=True)
libc.strlen.restype = ctypes.c_size_t
print(libc.strlen(b"twelve bytes"), libc.abs(-5), ctypes.string_at(b"abc", 2))
compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
numbers = (ctypes.c_int * 8)(*[5, 3, 8, 1, 9, 2, 7, 4])
libc.qsort(numbers, 8, 4, compare(lambda a, b: a[0] - b[0]))
print(list(numbers))
libc.open(b"/nonexistent", 0)
print(ctypes.get_errno())
libm = ctypes.CDLL("libm.so.6")
libm.pow.argtypes, libm.pow.restype = [ctypes.c_double] * 2, ctypes.c_double
print(libm.pow(2, 0.5))

class Node:
    pass
nodes = [Node() for _ in range(1000)]
for one, other in zip(nodes, nodes[1:] + nodes[:1]):
    one.next = other
gone = weakref.ref(nodes[0])
del nodes, one, other
gc.collect()
print(gone() is None)
def deep(level):
    return level and deep(level - 1) + 1
try:
    deep(10 ** 6)
except RecursionError as error:
    print(str(error)[:32])
sys.setrecursionlimit(5000)
print(deep(4000))
with sqlite3.connect("native.db") as database:
    database.execute("create table numbers (n integer primary key, square integer)")
    database.executemany("insert into numbers values (?, ?)", ((n, n * n) for n in range(1000)))
    database.create_function("cube", 1, lambda n: n ** 3)
    print(database.execute("select sum(square), max(cube(n)) from numbers").fetchone())
big = bytearray(64 << 20)
big[::4096] = b"x" * (len(big) // 4096)
print(big.count(b"x"))
blocks = [bytes([i % 256]) * (i % 5000) for i in range(20000)]
print(sum(map(len, blocks)), sum(block[0] for block in blocks if block))
sys.exit("the end, said on standard error")
