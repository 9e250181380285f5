#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""bash: its language, processes, pipes, signals, sockets and files, a script of its own, and job control on a
terminal."""

import os
import pty
import socket
import threading

from lib.harness import check
from lib.programs import PATIENCE, PROGRAMS, main, same

SESSION = {
    "arithmetic": (r"""
echo $((7 ** 20 % 1000003)) $((-17 / 5)) $((-17 % 5)) $((1 << 62)) $((0x7fffffffffffffff + 1)) $((36#zz))
for ((i = 0, sum = 0; i < 1000; i++)); do ((sum += i * i)); done; echo $sum
""", "531238 -3 -2 4611686018427387904 -9223372036854775808 1295\n332833500\n"),
    "strings and patterns": (r"""
word=interception; echo ${#word} ${word:5:4} ${word/e/E} ${word//[aeiou]/.} ${word^^} ${word%t*} ${word##*t}
[[ 2026-11-23 =~ ^([0-9]+)-([0-9]+) ]] && echo "${BASH_REMATCH[2]}/${BASH_REMATCH[1]}"
printf '%05d|%-6s|%6.2f|%x|%q\n' 42 ab 3.14159 255 'a b'
printf -v all '%s,' {a..e}{1..2}; echo "$all"; echo ${none:-default} ${word:+set}
echo Grüße | { read -r text; echo ${#text}; }
""", "12 cept intErception .nt.rc.pt..n INTERCEPTION intercep ion\n11/2026\n"
     "00042|ab    |  3.14|ff|a\\ b\na1,a2,b1,b2,c1,c2,d1,d2,e1,e2,\ndefault set\n5\n"),
    "arrays and functions": (r"""
declare -A age=([ann]=31 [bob]=27 [cyd]=45); for name in "${!age[@]}"; do echo "$name ${age[$name]}"; done | sort
mapfile -t lines < <(seq 5); echo "${#lines[@]} ${lines[@]:1:3} ${lines[-1]}"
fib() { local n=$1; ((n < 2)) && echo $n || echo $(($(fib $((n - 1))) + $(fib $((n - 2))))); }; fib 7
swap() { local -n a=$1 b=$2; local t=$a; a=$b; b=$t; }; x=1 y=2; swap x y; echo $x $y
case interrupt in int*) echo one;;& *rupt) echo two;; *) echo no;; esac
""", "ann 31\nbob 27\ncyd 45\n5 2 3 4 5\n13\n2 1\none\ntwo\n"),
    "pipes and processes": (r"""
seq 100000 | sort -rn | head -3 | tr '\n' ' '; echo "${PIPESTATUS[@]}"
yes | head -1; echo "${PIPESTATUS[0]}"
coproc tr a-z A-Z; echo shout >&"${COPROC[1]}"; exec {COPROC[1]}>&-; cat <&"${COPROC[0]}"; wait
for i in 3 1 2; do (exit $i) & pids+=($!); done; for pid in "${pids[@]}"; do wait $pid; echo -n "$? "; done; echo
diff=$(comm -3 <(seq 1 5) <(seq 2 6)); echo $diff
(cd /; pwd); [ "$PWD" = "$HOME" ] && echo still here
cat <<< "here $(uname -m)" <<END
END
bash -c 'exit 7'; echo $?; exec 3< <(echo through); read -r -u 3 word; echo $word; exec bash -c 'echo replaced'
""", "100000 99999 99998 0 141 0 0\ny\n141\nSHOUT\n3 1 2 \n1 6\n/\nstill here\n7\nthrough\nreplaced\n"),
    "here documents, traps, options": (r"""
name=world; cat <<END; cat <<'END'; cat <<-END; cat <(echo from one) - <(echo and another) <<<'between'
Hello, $name $((6 * 7)) $(cat <<IN
nested
IN
)
END
$name stays
END
	without tabs
	END
trap 'echo "error $? in ${FUNCNAME[0]:-no function}"' ERR; set -E; f() { (exit 4); return 0; }; f; false; trap - ERR
f() { trap 'echo returned; trap - RETURN' RETURN; echo in it; }; f
parse() { local o OPTIND; while getopts :ab: o; do echo -n "$o=${OPTARG:-} "; done; shift $((OPTIND - 1)); echo "$*"; }
parse -a -b x -c -- y z; parse -b
exec {out}> >(sort -r >reversed); seq 5 >&$out; exec {out}>&-; wait $!; paste -sd, reversed; rm reversed
select word in one two; do echo "$REPLY is $word"; break; done <<<2 2>/dev/null
IFS=: read -ra parts <<<a:b::c; declare -p parts; echo "${parts[*]@Q}"; history -s 'an event'; history | wc -l
eval 'x=$(($((2)) + ${#parts[@]}))'; echo $x; echo "${x@A}"; printf '%(%Y)T\n' 1000000000; echo ${!par*}
""", "Hello, world 42 nested\n$name stays\nwithout tabs\nfrom one\nbetween\nand another\nerror 4 in f\n"
     "error 1 in no function\nin it\nreturned\na= b=x ?=c y z\n:=b \n5,4,3,2,1\n2 is two\n"
     "declare -a parts=([0]=\"a\" [1]=\"b\" [2]=\"\" [3]=\"c\")\n'a' 'b' '' 'c'\n1\n6\nx='6'\n2001\nparts\n"),
    "jobs": (r"""
{ sleep 1000 & sleep 1000 & jobs -p | wc -l; kill %1 %2; wait %1; echo $?; wait %2; echo $?; } 2>/dev/null
(exit 9) & wait -n; echo $?; for i in 1 2 3; do (exit $i) & done; for i in 1 2 3; do wait -n; ((all += $?)); done; echo $all
set -m; sh -c 'kill -STOP $$; exit 6' & while [[ $(jobs -s) != *Stopped* ]]; do sleep 0.01; done 2>/dev/null
fg %1 2>/dev/null >&2; echo $?; set +m
sleep 1000 & disown; jobs; kill $!; for i in {1..40}; do true & done; wait; echo waited
""", "2\n143\n143\n9\n6\n6\nwaited\n"),
    "signals": (r"""
trap 'echo caught' USR1; kill -USR1 $$; echo after
trap 'echo child' CHLD; sleep 0.01 & wait; trap - CHLD
trap '' TERM; kill -TERM $$; echo ignored; trap - TERM
{ bash -c 'kill -SEGV $$'; } 2>/dev/null; echo $?
sleep 1000 & kill $!; wait $! 2>/dev/null; echo $?
(trap 'echo interrupted; exit 3' INT; kill -INT $BASHPID; echo never); echo $?
read -t 0.05 line < <(sleep 5); echo $(($? > 128))
timeout 0.2 bash -c 'while :; do :; done'; echo $?
trap 'echo left' EXIT
""", "caught\nafter\nchild\nignored\n139\n143\ninterrupted\n3\n1\n124\nleft\n"),
    "files": (r"""
mkdir -p a/b; echo one >a/1; echo two >>a/1; cp a/1 a/b/2; ln -s ../1 a/b/link; echo a/*/*; wc -l <a/b/link
shopt -s globstar extglob nullglob
echo ** ; echo a/!(b) none*; [[ -L a/b/link && a/1 -ef a/b/link ]] && echo same
exec 4<>a/rw; echo data >&4; exec 4>&-; read -r text <a/rw; echo $text
set -C; (echo x >a/1) 2>/dev/null; echo $?; umask 077; >a/private; stat -c %a a/private
(ulimit -n 50; ulimit -n); { (ulimit -f 1; dd if=/dev/zero of=a/big bs=4096 count=2); } 2>/dev/null; echo $?
[ -d /proc/self/fd ] && [ -e /dev/null ] && [ ! -e /nonexistent ] && echo found; rm -r a; echo *
""", "a/b/2 a/b/link\n2\na a/1 a/b a/b/2 a/b/link\na/1\nsame\ndata\n1\n600\n50\n153\nfound\n\n"),
}


def bash(programs):
    programs.session(SESSION, "bash", "-c")
    check(programs.run("bash", "-c", "kill -TERM $$")[0] == -15, "its end by a signal is a signal's")
    status, output, _ = programs.run("bash", "-s", "x", given=b'echo "from standard input: $1"; exit 5')
    check((status, output) == (5, b"from standard input: x\n"), "a script on standard input, and its status")
    own_script(programs)
    over_network(programs)
    on_terminal(programs)


def own_script(programs):
    """A file that the kernel would hand to its interpreter, by its path and from a shell."""
    script = programs.folder / "script"
    script.write_text(f'#!{PROGRAMS}/bash -e\necho "$# $2 ${{0##*/}}"; false; echo never\n', encoding="utf-8")
    script.chmod(0o755)
    check(programs.run(script, "a", "b c")[:2] == (1, b"2 b c script\n"), "a script, by its path")
    check(programs.run("bash", "-c", "./script a 'b c'; echo $?")[:2] == (0, b"2 b c script\n1\n"),
          "a script that a shell executes")
    check(programs.run("bash", "-c", "./nothing; echo $?; ./; echo $?")[1] == b"127\n126\n",
          "what is no program is refused")


def over_network(programs):
    """bash's own client of a TCP server."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve():
            connection, _ = server.accept()
            with connection, connection.makefile("rw") as stream:
                stream.write(stream.readline()[::-1].strip() + "\n")
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        said = programs.output("bash", "-c", f"exec 5<>/dev/tcp/127.0.0.1/{port}; echo evitcaretni >&5; cat <&5")
        thread.join(PATIENCE)
    same("a TCP connection", said.decode(), "interactive\n")


def on_terminal(programs):
    """An interactive shell: its prompt, line editing, signals of keys, and jobs."""
    side, theirs = pty.openpty()
    command = programs.command("bash", "--norc", "--noprofile", "-i", PS1="ready> ", PS2="more> ")
    shell = programs.test.run(["setsid", "--ctty", *command], terminal=theirs)
    os.close(theirs)
    shell.watch(side)

    def types(keys, answer):
        os.write(side, keys)
        shell.expect(answer, PATIENCE)

    shell.expect("ready> ", PATIENCE)
    types(b"tty -s && echo a'' terminal\r", "a terminal\r\n.*ready> ")
    types(b"echo wrog\x02n\r", "\nwrong\r\n.*ready> ")
    types(b"echo 'two\r", "more> ")
    types(b"lines'\r", "\ntwo\r\nlines\r\n.*ready> ")
    types(b"stty -a | head -1; stty size\r", "speed [0-9]+ baud.*\r\n0 0\r\n")
    check(True, "terminal: prompt, line editing, lines of several, its settings")
    waits = b"sh -c 'echo waits; exec sleep 1000'\r"
    types(waits, "\nwaits\r\n")
    types(b"\x03", "ready> ")
    types(b"echo status $?\r", "\nstatus 130\r\n")
    check(True, "terminal: Ctrl-C ends what runs, not the shell")
    types(waits, "\nwaits\r\n")
    types(b"\x1a", "(?s)Stopped +sh -c.*ready> ")
    types(b"jobs; bg; kill %1; wait %1; echo status $?\r", "\nstatus 143\r\n")
    check(True, "terminal: Ctrl-Z stops, bg continues, kill ends")
    os.write(side, b"exit 4\r")
    check(shell.wait(PATIENCE) == 4, "terminal: the shell ends with its status")
    os.close(side)


main(bash)
