// SPDX-License-Identifier: BSD-2-Clause
// A character with its sign as an index into a table.
// kind: global-buffer-overflow
// access: read 1
// missed-by: memcheck asan
#include "twin.h"

static char before[16];
static char classes[256] = {1};

static int class_of(const char *text)
{
    return HIDE(&classes[0])[(TWIN(signed, unsigned) char)*text];  // @access
}

int main(void)
{
    before[0] = 1;
    USE(before[0]);
    USE(class_of(HIDE("\xff")));
    return 0;
}
