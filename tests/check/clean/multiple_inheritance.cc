// SPDX-License-Identifier: BSD-2-Clause
// Pointers to bases in the middle of an object, by which it is deleted.
// kind: none
#include "twin.h"

struct readable {
    long position = 0;
    virtual ~readable() = default;
};

struct writable {
    long pending = 0;
    virtual ~writable() = default;
};

struct file : readable, writable {
    char buffer[100] = {};
    ~file() override
    {
        buffer[0] = 1;
    }
};

int main()
{
    writable *object = new file;
    HIDE(object)->pending = 1;
    file *whole = dynamic_cast<file *>(object);
    HIDE(whole)->buffer[99] = 1;
    delete HIDE(object);
    return 0;
}
