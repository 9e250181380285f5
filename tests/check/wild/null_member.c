// SPDX-License-Identifier: BSD-2-Clause
// A member at some distance of a structure that is not there.
// kind: null-dereference
// access: write 8
#include "twin.h"
#include <stddef.h>

struct device {
    char name[200];
    long state;
};

static struct device only;

static struct device *device_open(int number)
{
    return number == 0 ? &only : NULL;
}

int main(void)
{
    struct device *device = HIDE(device_open(HIDE(TWIN(1, 0))));
    device->state = 1;  // @access
    return 0;
}
