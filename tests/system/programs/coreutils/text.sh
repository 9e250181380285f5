# SPDX-License-Identifier: BSD-2-Clause
# dash and coreutils: text.
seq 1 3 200000 | sort -R --random-source=/dev/zero | sort -n | md5sum
seq 50000 | factor | tail -n 2
seq 300000 | sort -S 1M -r | head -c 20; echo
printf '%s\n' pear apple fig apple | sort | uniq -c | sort -rn -k1,1 -k2
printf 'a b c\nd e f\n' | tr ' ' '\t' | cut -f 2- | paste -s -d '+'
printf 'k1 x\nk2 y\n' >left; printf 'k2 z\nk3 w\n' >right
join -a 1 left right; comm left right; paste left right | expand -t 12
seq 20 | split -l 6 -d - part; wc -l part*; cat part* | tac | head -n 2
csplit -q left 2; cat xx01
printf 'The quick brown fox jumps over the lazy dog\n' | fold -s -w 16 | nl -w 2
printf 'one two three four five six seven\n' | fmt -w 16
printf '\001\377text\n' | od -A x -t x1z; printf 'strake' | base64; printf 'c3RyYWtl' | base64 -d; echo
for sum in md5sum sha1sum sha224sum sha256sum sha384sum sha512sum b2sum cksum; do seq 1000 | $sum; done
seq 1000 | sha256sum >sums; seq 1000 | sha256sum -c sums
numfmt --to=iec 123456789 5000; expr 17 \* 3 % 7 : '.*'; expr length interception; echo $((1 << 40))
printf '%d %o %x %5.2f %s|%-5s|%b\n' 42 8 255 2.71828 word left 'tab\there'
tsort <<END
a b
b c
a c
END
ptx -A -w 40 left | head -n 3; echo 3 1 2 | tr ' ' '\n' | shuf --random-source=/dev/zero | sort
head -c 100000 /dev/zero | tr '\0' x | wc -c; yes abc | head -n 100000 | uniq -c
date -u -d @1000000000 '+%F %T %a'; date -u -d '2024-02-28 + 2 days' +%d; unexpand -a <right | wc -c
echo error >&2; test 3 -lt 5 && [ -n word ]
