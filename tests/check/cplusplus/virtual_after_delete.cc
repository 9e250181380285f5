// SPDX-License-Identifier: BSD-2-Clause
// A virtual function of a deleted object.
// kind: heap-use-after-free
// access: read 8
// object: 16 bytes, at 0
#include "twin.h"

struct animal {
    long legs = 4;
    virtual long count() const
    {
        return legs;
    }
    virtual ~animal() = default;
};

struct bird : animal {  // @freed (its destructor)
    long count() const override
    {
        return 2;
    }
};

int main()
{
    animal *pet = new bird;  // @allocated
    if (TWIN(1, 0))
        delete HIDE(pet);     // @freed
    USE(HIDE(pet)->count());  // @access
    if (TWIN(0, 1))
        delete HIDE(pet);
    return 0;
}
