# SPDX-License-Identifier: BSD-2-Clause
# dash and coreutils: files, folders, and processes.
umask 022
mkdir -p a/b/c d; for i in 1 2 3; do echo "file $i" >a/f$i; done
ln -s ../f1 a/b/link; ln a/f2 a/b/hard; touch -d '2001-09-09 01:46:40.5 UTC' a/f3; chmod 640 a/f1
stat -c '%n %s %a %h %F' a/f1 a/f2 a/b a/b/link; stat -c %y a/f3; stat -L -c %s a/b/link
cp -a a copy; cp -r --preserve=timestamps a/b d; ls -R copy d; ls -l a/f3 | cut -c 1-10; ls -1p a
mv a/f1 a/b/moved; mv -n a/f2 a/f3; rm copy/f1; rm -r d; readlink copy/b/link; readlink -e copy/b/link; echo $?
realpath --relative-to=. a/b/../f2; basename a/b.c .c; dirname a/b/c; pathchk a/b; mktemp -u X.XXXX | wc -c
dd if=/dev/zero of=image bs=4k count=3 seek=2 2>/dev/null; stat -c %s image; truncate -s 10000000 image; wc -c <image
dd if=image of=other bs=1M conv=sparse,notrunc 2>/dev/null; sha256sum <image >sum; sha256sum <other | comm -3 - sum; du --apparent-size -B 1 image
install -D -m 755 a/f2 e/f/g; stat -c %a e/f/g; mkfifo pipe; (echo through >pipe &); cat pipe; rm pipe
ln -s nowhere dangling; test -e dangling || echo dangles; test -h dangling && echo link; sync image; shred -u other; ls
rm a/b 2>&1; rmdir a 2>&1; cat missing 2>&1; mkdir a 2>&1; cp a x 2>&1; ls missing; echo $?
env -u HOME printenv HOME; echo $?; env X=1 printenv X
nice -n 5 nice; nohup true 2>/dev/null; timeout 0.1 sleep 1000; echo $?; timeout -s KILL 0.1 sleep 1000; echo $?
sleep 0.05 & wait $!; echo $?; (exit 3); echo $?; sleep 1000 & kill $!; wait $!; echo $?
trap 'echo trapped' USR1; kill -USR1 $$; trap 'echo leaving' EXIT
echo one | tee copy/tee1 copy/tee2 | cat; cat copy/tee2; cd copy && pwd | tail -c 5
printf 'read %s\n' "$(head -c 5 <b/hard)"; while read -r word number; do echo "$number $word"; done <b/hard
stdbuf -oL echo buffered; stty -g </dev/null 2>&1 | tail -c 5; id -u | wc -l; nproc >/dev/null && uname -s; tty; echo $?
set -- a 'b c' d; for word; do echo "<$word>"; done; shift; echo $# "$*"; getopts xy: option -y value; echo "$option $OPTARG"
exit 12
