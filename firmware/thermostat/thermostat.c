// SPDX-License-Identifier: BSD-2-Clause
// A thermostat: each tick of the timer takes a sample of the sensor, the main loop switches the
// heater by it and writes a line now and then. After a while it sums up and switches off.
//
// Mistakes can be built in, most of them of the kind that goes unnoticed on a desk: BUG_OVERFLOW,
// BUG_USE_AFTER_FREE, BUG_DOUBLE_FREE, BUG_NULL, BUG_LEAK.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "board.h"
#include "pool.h"
#include "room.h"

#define SAMPLES 200u
#define SAMPLES_PER_LINE 20u
#define TICK_US 2000u
#define WANTED 2000  // hundredths of a degree
#define TOLERANCE 50

struct sample {
    struct sample *next;
    uint32_t number;
    int32_t temperature;
};

// From the interrupt to the main loop, the oldest first.
static struct {
    struct sample *first, **last;
    uint32_t taken;
} samples = {.last = &samples.first};

static struct {
    bool heater;
    uint32_t switched, faults;
} state;

// ---- Samples ------------------------------------------------------------------------------------

void board_tick(void)
{
    struct sample *sample = samples.taken < SAMPLES ? pool_alloc(sizeof(*sample)) : NULL;

    if (!sample)
        return;  // the main loop is behind: the next tick will do
    *sample = (struct sample){.number = ++samples.taken, .temperature = room_read_sensor()};
    *samples.last = sample;
    samples.last = &sample->next;
}

// Waits for it.
static struct sample *next_sample(void)
{
    uint64_t interrupts = board_interrupts_off();
    struct sample *sample;

    while (!(sample = *(struct sample *volatile *)&samples.first)) {
        board_sleep();
        board_interrupts_restore(interrupts);
        board_interrupts_off();
    }
    samples.first = sample->next;
    if (!samples.first)
        samples.last = &samples.first;
    board_interrupts_restore(interrupts);
    return sample;
}

// ---- Lines --------------------------------------------------------------------------------------

#ifdef BUG_OVERFLOW
#define LONGEST_LINE "sample 0000: -00.00 C, heater on\n"
#else
#define LONGEST_LINE "sample 0000: -00.00 C, heater off\n"
#endif

static char *put_text(char *to, const char *text)
{
    while ((*to = *text++))
        to++;
    return to;
}

static char *put_number(char *to, uint32_t value, unsigned digits)
{
    for (unsigned i = digits; i-- > 0; value /= 10)
        to[i] = (char)('0' + value % 10);
    to[digits] = 0;
    return to + digits;
}

static char *put_temperature(char *to, int32_t temperature)
{
    uint32_t size = (uint32_t)(temperature < 0 ? -temperature : temperature);

    to = put_text(to, temperature < 0 ? "-" : "+");
    to = put_number(to, size / 100, 2);
    to = put_text(to, ".");
    return put_number(to, size % 100, 2);
}

static void write_line(const struct sample *sample)
{
    char *line = pool_alloc(sizeof(LONGEST_LINE)), *end = line;

    if (!line)
        return;
    end = put_number(put_text(end, "sample "), sample->number, 4);
    end = put_temperature(put_text(end, ": "), sample->temperature);
    end = put_text(end, " C, heater ");
    put_text(end, state.heater ? "on\n" : "off\n");
    board_print(line);
#ifndef BUG_LEAK
    pool_free(line);
#endif
}

// ---- Control ------------------------------------------------------------------------------------

static void control(int32_t temperature)
{
    bool heat = state.heater ? temperature < WANTED + TOLERANCE : temperature < WANTED - TOLERANCE;

    if (heat != state.heater)
        state.switched++;
    state.heater = heat;
    room_set_heater(heat);
}

// False: there is nothing to go by.
static bool usable(struct sample *sample)
{
    if (sample->temperature != ROOM_SENSOR_FAULT)
        return true;
    state.faults++;
#ifdef BUG_DOUBLE_FREE
    pool_free(sample);
#endif
    return false;
}

static void handle(struct sample *sample)
{
    if (usable(sample)) {
        control(sample->temperature);
#ifdef BUG_USE_AFTER_FREE
        pool_free(sample);
        if (sample->number % SAMPLES_PER_LINE == 0)
            write_line(sample);
        return;
#endif
        if (sample->number % SAMPLES_PER_LINE == 0)
            write_line(sample);
    }
    pool_free(sample);
}

#ifdef BUG_NULL
#define SUM_BYTES (2 * POOL_BLOCK_BYTES)
#else
#define SUM_BYTES POOL_BLOCK_BYTES
#endif

static void sum_up(void)
{
    char *text = pool_alloc(SUM_BYTES), *end = text;

    end = put_number(end, state.switched, 2);
    end = put_text(end, " times switched, ");
    end = put_number(end, state.faults, 2);
    end = put_text(end, " faults, ");
    end = put_number(end, POOL_BLOCKS - pool_blocks_free(), 2);
    put_text(end, " blocks in use\n");
    board_print(text);
    pool_free(text);
}

int main(void)
{
    pool_init();
    board_print("thermostat: ready\n");
    board_start_ticks(TICK_US);
    for (uint32_t i = 0; i < SAMPLES; i++)
        handle(next_sample());
    sum_up();
    return 0;
}
