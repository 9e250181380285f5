# SPDX-License-Identifier: BSD-2-Clause
"""What more than one system test has its guest do."""

from lib.harness import check

# Prints what the kernel found, for check_description.
DESCRIBE = """
echo "release $(uname -r) $(uname -m)"
echo "harts $(nproc) of $(grep -c ^processor /proc/cpuinfo)"
for cpu in /sys/devices/system/cpu/cpu[0-9]*; do
    taskset -p $$ >/dev/null
    echo "work on ${cpu##*cpu}: $(taskset $((1 << ${cpu##*cpu})) sh -c 'echo $((6 * 7))')"
done
dmesg | grep -e 'SBI ' -e 'mmu-type' -e 'WARNING' -e 'BUG' -e 'Oops'
grep -m1 ^isa /proc/cpuinfo
grep -m1 ^mmu /proc/cpuinfo
"""


def check_description(guest, cpus):
    """Checks the output of DESCRIBE."""
    text = guest.text()
    check("strake: init started" in text, f"Debian's kernel boots to its init with {cpus} hart(s)")
    check(f"harts {cpus} of {cpus}" in text, f"{cpus} hart(s) are online")
    check(all(f"work on {cpu}: 42" in text for cpu in range(cpus)), "each hart runs programs")
    check("riscv64" in text, "it is a riscv64 kernel")
    for word in ("WARNING", "BUG", "Oops"):
        check(word not in text, f"the kernel's log has no '{word}'")
