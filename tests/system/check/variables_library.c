// SPDX-License-Identifier: BSD-2-Clause
// The library of variables.cc: static variables of its own.
static const char names[3][8] = {"first", "second", "third"};
int counts[3];

const char *library_name(int which)
{
    counts[which]++;
    return names[which];
}

int library_count(const int *which)
{
    int value = *which;
    return counts[value];
}
