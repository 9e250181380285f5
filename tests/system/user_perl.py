#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""perl: the scripts programs/perl/* do under `strake user` what they do natively, by the host's perl."""

from lib.programs import SCRIPTS, main


def perl(programs):
    for script in sorted((SCRIPTS / "perl").glob("*.pl")):
        programs.as_native(script.name, "/usr/bin/perl", "perl", script)
    programs.as_native("one line, in place", "/usr/bin/perl", "perl", "-ne",
                       'print "$.: $_" if /o/; END { print "$. lines\\n" }', given=b"one\ntwo\nthree\nfour\n")
    programs.as_native("what is no program", "/usr/bin/perl", "perl", "-e", "sub { ")


main(perl)
