// SPDX-License-Identifier: BSD-2-Clause
// Objects that are made before main() and destroyed after it.
// kind: none
#include "twin.h"
#include <map>
#include <string>
#include <vector>

struct registry {
    std::map<std::string, std::vector<int>> entries;
    registry()
    {
        for (int i = 0; i < 20; i++)
            entries[std::string(30, 'a' + i)].assign(i, i);
    }
    ~registry()
    {
        entries.clear();
    }
};

static registry global_registry;

static registry &lazy_registry()
{
    static registry only;
    return only;
}

int main()
{
    HIDE(&lazy_registry())->entries.erase(std::string(30, 'b'));
    return global_registry.entries.size() != 20;
}
