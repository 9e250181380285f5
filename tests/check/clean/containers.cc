// SPDX-License-Identifier: BSD-2-Clause
// The containers of the library, filled, moved, sorted and cleared.
// kind: none
#include "twin.h"
#include <algorithm>
#include <deque>
#include <list>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

int main()
{
    std::vector<std::string> words;
    std::map<std::string, int> sorted;
    std::unordered_map<int, std::string> hashed;
    std::deque<int> queue;
    std::list<std::set<int>> sets;
    for (int i = 0; i < 500; i++) {
        words.push_back(std::string(HIDE(i) % 40, 'a' + i % 26));
        sorted[words.back()] += i;
        hashed[i * 7919] = words[i / 2];
        i % 3 ? queue.push_back(i) : queue.push_front(-i);
        if (i % 50 == 0)
            sets.emplace_back();
        sets.back().insert(i % 17);
    }
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    std::vector<std::string> moved = std::move(words);
    for (int i = 0; i < 250; i++) {
        hashed.erase(i * 7919);
        queue.pop_front();
    }
    sets.reverse();
    return moved.size() != sorted.size() || hashed.size() != 250 || queue.size() != 250;
}
