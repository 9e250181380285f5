// SPDX-License-Identifier: BSD-2-Clause
// A program of several sources in C++: templates, virtual functions, exceptions, threads, the library.
#include <algorithm>
#include <cstdio>
#include <future>
#include <iomanip>
#include <iostream>
#include <map>
#include <numeric>
#include <thread>
#include <vector>

#include "shapes.h"

template <typename T, typename... Rest> T sum(T first, Rest... rest)
{
    if constexpr (sizeof...(rest) == 0)
        return first;
    else
        return first + sum(rest...);
}

struct guard {
    const char *name;
    ~guard() { std::cout << "left " << name << '\n'; }
};

static std::unique_ptr<shape> guarded(const std::string &words)
{
    guard inner{"guarded"};
    return make_shape(words);
}

static thread_local int calls;

int main()
{
    std::vector<std::unique_ptr<shape>> shapes;
    for (const char *words : {"circle 2", "box 3 4", "heap of 9", "box 1 1"})
        try {
            shapes.push_back(guarded(words));
        } catch (const no_shape &error) {
            std::cout << "caught: " << error.what() << '\n';
        }
    std::sort(shapes.begin(), shapes.end(), [](auto &a, auto &b) { return a->area() < b->area(); });
    for (auto &one : shapes)
        std::cout << one->name << ' ' << std::fixed << std::setprecision(3) << one->area() << '\n';
    std::map<std::string, std::vector<int>> numbers;
    for (int i = 0; i < 20000; i++)
        numbers["key " + std::to_string(i % 97) + std::string(i % 50, '.')].push_back(i);
    size_t most = 0;
    for (auto &[key, values] : numbers)
        most = std::max(most, values.size());
    std::cout << numbers.size() << " keys, at most " << most << ", " << numbers.begin()->first << '\n';
    std::vector<std::future<long>> parts;
    for (long part = 0; part < 4; part++)
        parts.push_back(std::async(std::launch::async, [part] {
            std::vector<long> values(10000);
            std::iota(values.begin(), values.end(), part * 10000);
            calls++;
            return std::accumulate(values.begin(), values.end(), 0L) + calls;
        }));
    long total = 0;
    for (auto &part : parts)
        total += part.get();
    std::cout << total << ' ' << sum(1, 2, 3) << ' ' << sum(std::string("a"), std::string("b")) << '\n';
    auto failing = std::async(std::launch::async, []() -> int { throw std::out_of_range("thrown in a thread"); });
    try {
        return failing.get();
    } catch (const std::exception &error) {
        std::cout << error.what() << std::endl;
    }
    return 7;
}
