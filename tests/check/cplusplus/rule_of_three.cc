// SPDX-License-Identifier: BSD-2-Clause
// A class with a destructor, copied member by member.
// kind: double-free
// object: 256 bytes, at 0
#include "twin.h"
#include <cstring>

class buffer
{
  public:
    buffer() : bytes(new char[256])
    {
    }
#ifdef FIXED
    buffer(const buffer &other) : bytes(new char[256])
    {
        memcpy(bytes, other.bytes, 256);
    }
#endif
    ~buffer()
    {
        delete[] HIDE(bytes);  // @freed @access
    }

  private:
    char *bytes;
};

int main()
{
    buffer first;
    buffer second(first);
    return 0;
}  // @freed
