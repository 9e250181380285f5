// SPDX-License-Identifier: BSD-2-Clause
// Options that are keys of a definition, for tables of options; those of a partition's that run and
// create have in common. Private to this room.
#ifndef STRAKE_CLI_KEYS_H
#define STRAKE_CLI_KEYS_H

#include "cli/cli.h"

// Whoever has such options has a function set_definition (cli_option.set).
#define CLI_KEY(name_, value_, help_)                                                              \
    {                                                                                              \
        .name = name_, .value = value_, .help = help_, .set = set_definition                       \
    }

#define CLI_DEFINITION_KEYS                                                                        \
    CLI_KEY("kernel", "FILE", "Linux Image, or an ELF program"),                                   \
        CLI_KEY("initrd", "FILE", "initial RAM disk for the kernel"),                              \
        CLI_KEY("append", "TEXT", "kernel command line"),                                          \
        CLI_KEY("firmware", "FILE", "M-mode firmware (raw or ELF) instead of the built-in SBI"),   \
        CLI_KEY("memory", "SIZE", "RAM, 16M to 64G (default 512M; a plain number is MiB)"),        \
        CLI_KEY("cpus", "N", "harts, 1 to 16 (default 1)"),                                        \
        CLI_KEY("disk", "FILE[,ro][,aio=io_uring|sync]",                                           \
                "raw disk image or block device; repeat for more"),                                \
        CLI_KEY("net", "user[,hostfwd=tcp:ADDR:PORT-:PORT]|tap=IF[,queues=N]",                     \
                "network device, user-mode (guest is 10.0.2.15, host 10.0.2.2) "                   \
                "or on a tap interface; ,mac=XX:XX:XX:XX:XX:XX sets its address; "                 \
                "repeat for more"),                                                                \
        CLI_KEY("vsock", "CID,PATH",                                                               \
                "sockets between guest and host: the guest's port P is "                           \
                "PATH_P on the host, the host connects to PATH"),                                  \
        CLI_KEY("engine", "interp|jit|verify",                                                     \
                "what executes instructions: an interpreter, a translator (default), or "          \
                "both, compared with each other"),                                                 \
        CLI_KEY("jit-cache", "SIZE",                                                               \
                "translated code that each hart may keep, 128K to 256M "                           \
                "(default 32M; a plain number is MiB)"),                                           \
        CLI_KEY("windows", "on|off",                                                               \
                "reach the guest's memory through the host's MMU (default on)"),                   \
        CLI_KEY("mmu", "sv39|sv48|sv57",                                                           \
                "the largest address spaces that guests may have (default sv39, "                  \
                "which the translator is fastest with)"),                                          \
        CLI_KEY("gdb", "ADDR:PORT", "wait for a debugger before starting"),                        \
        CLI_KEY("no-reboot", NULL, "end when the guest reboots"),                                  \
        CLI_KEY("perf-map", "[=FILE]",                                                             \
                "write /tmp/perf-PID.map, from which Linux' perf names translated "                \
                "code; FILE (ELF, System.map, kallsyms) has the guest's functions; "               \
                "repeat for more"),                                                                \
        CLI_KEY("log", "LEVEL[,jit]",                                                              \
                "error, warn (default), info or debug; jit: each translation, "                    \
                "guest and host code side by side")

#endif
