#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""dash and coreutils: the scripts programs/coreutils/* do under `strake user` what they do natively, by the host's."""

from lib.programs import SCRIPTS, main


def coreutils(programs):
    for script in sorted((SCRIPTS / "coreutils").glob("*.sh")):
        programs.as_native(script.name, "/bin/dash", "dash", script)


main(coreutils)
