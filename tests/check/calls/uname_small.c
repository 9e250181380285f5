// SPDX-License-Identifier: BSD-2-Clause
// uname() into a block for one of its fields.
// kind: syscall-buffer-overflow or heap-buffer-overflow
// access: write
// object: 65 bytes
// missed-by: asan
#include "twin.h"
#include <stdlib.h>
#include <sys/utsname.h>

int main(void)
{
    struct utsname *names = malloc(TWIN(sizeof(names->sysname), sizeof(*names)));  // @allocated
    int failed = uname(HIDE(names));                                               // @access
    free(names);
    return failed != 0;
}
