// SPDX-License-Identifier: BSD-2-Clause
// The program around a kernel: NAME ROUNDS runs it and prints its checksum.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel.h"

int main(int argc, char **argv)
{
    unsigned long rounds = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;

    if (rounds == 0) {
        fprintf(stderr, "usage: %s ROUNDS\n", argv[0]);
        return 2;
    }
    printf("checksum %016" PRIx64 "\n", kernel_run(rounds));
    return 0;
}
