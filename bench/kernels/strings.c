// SPDX-License-Identifier: BSD-2-Clause
// strings: words are made, kept in a hash table, joined to lines that grow as they are written, the
// lines are taken apart again, and the words counted and sorted; with the C library's functions for
// strings.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

enum { BUCKETS = 1 << 16, WORDS = 1 << 18, LINES = 1 << 13, LINE_WORDS = 40 };

struct word {
    struct word *next;
    char *text;
    unsigned count;
};

struct table {
    struct word *buckets[BUCKETS];
    size_t words;
};

static void *sure(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

static uint32_t hash_of(const char *text)
{
    uint32_t hash = 2166136261u;

    while (*text)
        hash = (hash ^ (uint8_t)*text++) * 16777619u;
    return hash;
}

static struct word *table_word(struct table *table, const char *text)
{
    struct word **link = &table->buckets[hash_of(text) % BUCKETS];

    while (*link && strcmp((*link)->text, text) != 0)
        link = &(*link)->next;
    if (!*link) {
        *link = sure(calloc(1, sizeof(**link)));
        (*link)->text = sure(strdup(text));
        table->words++;
    }
    return *link;
}

static void make_word(char *text, size_t bytes, uint64_t *random)
{
    static const char *const syllables[] = {"ka", "lo", "ne", "mi", "tur", "ost", "ra", "ven"};
    unsigned number = (unsigned)(kernel_random(random) % WORDS);

    text[0] = '\0';
    for (unsigned rest = number; rest > 0; rest /= 8)
        strcat(text, syllables[rest % 8]);
    if (number % 4 == 0)
        snprintf(text + strlen(text), bytes - strlen(text), "-%u", number % 1000);
}

// A line of words, longer by each.
static char *make_line(uint64_t *random)
{
    char *line = sure(calloc(1, 1)), word[40];
    size_t length = 0;

    for (unsigned i = 0; i < LINE_WORDS; i++) {
        make_word(word, sizeof(word), random);
        size_t more = strlen(word);
        line = sure(realloc(line, length + more + 2));
        memcpy(line + length, word, more);
        strcpy(line + length + more, " ");
        length += more + 1;
    }
    return line;
}

static void count_words(struct table *table, const char *line)
{
    for (const char *end; (end = strchr(line, ' ')); line = end + 1) {
        char *text = sure(strndup(line, (size_t)(end - line)));
        table_word(table, text)->count++;
        free(text);
    }
}

static int by_text(const void *a, const void *b)
{
    return strcmp((*(struct word *const *)a)->text, (*(struct word *const *)b)->text);
}

// Takes the table down; a sum of its words, in order.
static uint64_t table_sum(struct table *table)
{
    struct word **words = sure(malloc(table->words * sizeof(struct word *)));
    uint64_t sum = 0;
    size_t count = 0;

    for (size_t i = 0; i < BUCKETS; i++)
        for (struct word *word = table->buckets[i]; word; word = word->next)
            words[count++] = word;
    qsort(words, count, sizeof(words[0]), by_text);
    for (size_t i = 0; i < count; i++) {
        sum = kernel_mix(sum, hash_of(words[i]->text) + words[i]->count);
        free(words[i]->text);
        free(words[i]);
    }
    free(words);
    return sum;
}

uint64_t kernel_run(unsigned long rounds)
{
    static char *lines[LINES];
    uint64_t random = 11, sum = 0;

    for (unsigned long round = 0; round < rounds; round++) {
        struct table *table = sure(calloc(1, sizeof(*table)));
        for (size_t i = 0; i < LINES; i++)
            lines[i] = make_line(&random);
        for (size_t i = 0; i < LINES; i++)
            count_words(table, lines[i]);
        sum = kernel_mix(sum, table_sum(table));
        for (size_t i = 0; i < LINES; i++)
            free(lines[i]);
        free(table);
    }
    return sum;
}
