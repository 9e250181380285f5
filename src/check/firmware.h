// SPDX-License-Identifier: BSD-2-Clause
// firmware: a bare-metal program on the emulated board, checked: docs/firmware.md.
#ifndef STRAKE_CHECK_FIRMWARE_H
#define STRAKE_CHECK_FIRMWARE_H

#include "check/checker.h"

struct check_firmware_options {
    const char *path;  // an ELF file
    bool supervisor;   // it begins in S-mode, on the built-in SBI; else in M-mode
    const struct hart_engine *engine;
    uint64_t memory_bytes;
    unsigned cpus;
    struct checker_options checker;  // `program` is set here
};

// Runs it with the process' stdin and stdout as its console, until it switches off, asks for a
// reset, is halted because of a report, or SIGINT, SIGTERM or SIGHUP comes. *status is what the
// process is to exit with: CHECKER_STATUS when something was reported; 128 and the number of the
// signal; else 0. 0 or a negative errno with *err: it could not be run, or says that it failed.
// Once a process.
BASE_NODISCARD int check_firmware_run(const struct check_firmware_options *options, int *status,
                                      struct error *err);

#endif
