# SPDX-License-Identifier: BSD-2-Clause
import decimal, fractions, hashlib, itertools, json, math, random, re, statistics, struct
print(2 ** 200 % 10 ** 12, math.factorial(25), math.isqrt(10 ** 30), math.sin(1), 1e308 * 10, -7 // 2, 0.1 + 0.2)
print(hashlib.sha256(b"strake" * 1000).hexdigest(), hashlib.blake2b(b"", digest_size=8).hexdigest())
print(json.dumps(json.loads('{"a": [1, 2.5, null, "\\u00fc"]}'), ensure_ascii=False))
print(re.sub(r"(\w+)@(\w+)", r"\2 at \1", "ann@home, bob@work"), struct.unpack("<hIq", struct.pack("<hIq", -2, 7, -9)))
print(decimal.Decimal(2).sqrt(), fractions.Fraction(3, 9), statistics.stdev([1, 2, 3, 4]))
print(random.Random(5).sample(range(1000), 4), sum(1 for _ in itertools.permutations(range(7))))
print("".join(sorted("Straße")), "ǅ".lower(), "ﬁ".upper(), [*{c: 0 for c in "abca"}])
try:
    [].pop()
except IndexError as error:
    print(error)
