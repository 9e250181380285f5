// SPDX-License-Identifier: BSD-2-Clause
// The size of the pointer was asked for instead of the structure's.
// kind: heap-buffer-overflow
// access: write 8
// object: 8 bytes, at 8
#include "twin.h"
#include <stdlib.h>

struct account {
    long id;
    long balance;
    char owner[20];
};

static struct account *account_open(long id)
{
    struct account *account = malloc(TWIN(sizeof(account), sizeof(*account)));  // @allocated
    HIDE(account)->id = id;
    HIDE(account)->balance = 100;  // @access
    return account;
}

int main(void)
{
    struct account *account = account_open(HIDE(7L));
    free(account);
    return 0;
}
