# SPDX-License-Identifier: BSD-2-Clause
"""Lines of a program's source that reports are to name."""

import re


def marks(source):
    """The numbers of the lines that have // @NAME behind them, by these names."""
    lines = source.read_text(encoding="utf-8").splitlines()
    return {name: number for number, line in enumerate(lines, 1) for name in re.findall(r"// @([\w-]+)", line)}
