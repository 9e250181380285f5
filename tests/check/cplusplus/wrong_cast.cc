// SPDX-License-Identifier: BSD-2-Clause
// An object is used as that of a larger class.
// kind: heap-buffer-overflow
// access: write 8
// object: 16 bytes, at 16
#include "twin.h"

struct base {
    long id = 1;
    virtual ~base() = default;
};

struct derived : base {
    long extra = 2;
};

int main()
{
    base *object = TWIN(new base, new derived);       // @allocated
    static_cast<derived *>(HIDE(object))->extra = 3;  // @access
    delete object;
    return 0;
}
