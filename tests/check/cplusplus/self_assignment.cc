// SPDX-License-Identifier: BSD-2-Clause
// operator= that frees its own before it copies from the other, which is the same.
// kind: heap-use-after-free
// access: read
// object: 10 bytes
#include "twin.h"
#include <cstring>

class text
{
  public:
    explicit text(const char *from) : letters(copy(from))
    {
    }
    text &operator=(const text &other)
    {
        if (TWIN(1, this != &other)) {
            delete[] HIDE(letters);         // @freed
            letters = copy(other.letters);  // @access
        }
        return *this;
    }
    ~text()
    {
        delete[] letters;
    }

  private:
    static char *copy(const char *from)
    {
        size_t bytes = strlen(HIDE(from)) + 1;  // @access
        char *to = new char[bytes];             // @allocated
        memcpy(to, from, bytes);
        return to;
    }
    char *letters;
};

int main()
{
    text name("some text");
    text *same = HIDE(&name);
    name = *same;
    return 0;
}
