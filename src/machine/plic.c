// SPDX-License-Identifier: BSD-2-Clause
// Platform-level interrupt controller. Source: RISC-V PLIC 1.0.0, chapter numbers below are its.
//
// Every source is level-triggered. A gateway (chapter 4) lets one request of its source through
// and then stays closed until that one has been completed; if the line is still high then, the next
// request follows at once. A request that was let through stays pending when the line drops.
//
// Threads: lines and registers from any thread, under one lock; outputs are driven with it held, so
// that they change in the order of their causes.
#include <errno.h>
#include <string.h>

#include "machine/devices.h"

// Chapter 3, memory map.
enum {
    PLIC_PRIORITY = 0x0,
    PLIC_PENDING = 0x1000,
    PLIC_ENABLE = 0x2000,
    PLIC_ENABLE_STRIDE = 0x80,
    PLIC_CONTEXT = 0x200000,
    PLIC_CONTEXT_STRIDE = 0x1000,
    PLIC_THRESHOLD = 0x0,
    PLIC_CLAIM = 0x4,
};

#define PLIC_PRIORITY_MASK 7u

static bool bit_test(const uint32_t *words, unsigned bit)
{
    return words[bit / 32] >> (bit % 32) & 1;
}

static void bit_put(uint32_t *words, unsigned bit, bool value)
{
    uint32_t mask = 1u << (bit % 32);
    words[bit / 32] = value ? words[bit / 32] | mask : words[bit / 32] & ~mask;
}

// The source to serve first (chapter 8: highest priority, then lowest number) among those pending,
// enabled for the context and above `threshold`; 0 when there is none.
static unsigned best_source(const struct plic *plic, const struct plic_context *context,
                            uint32_t threshold)
{
    unsigned best = 0;

    for (unsigned word = 0; word < PLIC_WORDS; word++) {
        uint32_t bits = plic->pending[word] & context->enable[word];
        for (; bits; bits &= bits - 1) {
            unsigned source = word * 32 + (unsigned)__builtin_ctz(bits);
            if (plic->priority[source] > threshold) {
                best = source;
                threshold = plic->priority[source];
            }
        }
    }
    return best;
}

// Chapter 4: opens the gateway of a source whose line is high and which is not being served.
static void gateway_update(struct plic *plic, unsigned source)
{
    if (bit_test(plic->level, source) && !bit_test(plic->claimed, source))
        bit_put(plic->pending, source, true);
}

static void outputs_update(struct plic *plic)
{
    for (unsigned i = 0; i < plic->contexts; i++) {
        struct plic_context *context = &plic->context[i];
        bool output = best_source(plic, context, context->threshold) != 0;
        if (output != context->output) {
            context->output = output;
            plic->set(plic->opaque, i, output);
        }
    }
}

static void line_set(void *controller, unsigned source, bool level)
{
    struct plic *plic = controller;

    pthread_mutex_lock(&plic->lock);
    if (bit_test(plic->level, source) != level) {
        bit_put(plic->level, source, level);
        gateway_update(plic, source);
        outputs_update(plic);
    }
    pthread_mutex_unlock(&plic->lock);
}

struct irq_line plic_line(struct plic *plic, unsigned source)
{
    return (struct irq_line){.set = line_set, .controller = plic, .source = source};
}

// Chapter 8. The threshold does not matter to a claim, but a priority of 0 never interrupts.
static uint32_t claim(struct plic *plic, struct plic_context *context)
{
    unsigned source = best_source(plic, context, 0);

    if (source) {
        bit_put(plic->pending, source, false);
        bit_put(plic->claimed, source, true);
    }
    return source;
}

// Chapter 9: a completion of what the context is not enabled for is ignored.
static void complete(struct plic *plic, const struct plic_context *context, uint32_t source)
{
    if (source > PLIC_SOURCES || !bit_test(context->enable, source))
        return;
    bit_put(plic->claimed, source, false);
    gateway_update(plic, source);
}

static uint32_t context_read(struct plic *plic, struct plic_context *context, uint32_t reg)
{
    switch (reg) {
    case PLIC_THRESHOLD:
        return context->threshold;
    case PLIC_CLAIM:
        return claim(plic, context);
    default:
        return 0;
    }
}

static void context_write(struct plic *plic, struct plic_context *context, uint32_t reg,
                          uint32_t value)
{
    if (reg == PLIC_THRESHOLD)
        context->threshold = value & PLIC_PRIORITY_MASK;
    else if (reg == PLIC_CLAIM)
        complete(plic, context, value);
}

// The bits of an enable word that stand for a source that exists.
static uint32_t sources_of_word(uint64_t word)
{
    if (word == 0)
        return ~1u;
    return word < PLIC_SOURCES / 32 ? ~0u : (2u << PLIC_SOURCES % 32) - 1;
}

// The enable word that `offset` names, or NULL when there is none.
static uint32_t *enable_word(struct plic *plic, uint64_t offset)
{
    uint64_t context = (offset - PLIC_ENABLE) / PLIC_ENABLE_STRIDE;
    uint64_t word = (offset - PLIC_ENABLE) % PLIC_ENABLE_STRIDE / 4;

    return context < plic->contexts && word < PLIC_WORDS ? &plic->context[context].enable[word]
                                                         : NULL;
}

static struct plic_context *context_at(struct plic *plic, uint64_t offset)
{
    uint64_t context = (offset - PLIC_CONTEXT) / PLIC_CONTEXT_STRIDE;

    return context < plic->contexts ? &plic->context[context] : NULL;
}

static uint32_t register_read(struct plic *plic, uint64_t offset)
{
    if (offset >= PLIC_CONTEXT) {
        struct plic_context *context = context_at(plic, offset);
        return context ? context_read(plic, context, offset % PLIC_CONTEXT_STRIDE) : 0;
    }
    if (offset >= PLIC_ENABLE) {
        const uint32_t *word = enable_word(plic, offset);
        return word ? *word : 0;
    }
    if (offset >= PLIC_PENDING) {
        uint64_t word = (offset - PLIC_PENDING) / 4;
        return word < PLIC_WORDS ? plic->pending[word] : 0;
    }
    return offset / 4 <= PLIC_SOURCES ? plic->priority[offset / 4] : 0;
}

static void register_write(struct plic *plic, uint64_t offset, uint32_t value)
{
    if (offset >= PLIC_CONTEXT) {
        struct plic_context *context = context_at(plic, offset);
        if (context)
            context_write(plic, context, offset % PLIC_CONTEXT_STRIDE, value);
    } else if (offset >= PLIC_ENABLE) {
        uint32_t *word = enable_word(plic, offset);
        if (word)
            *word = value & sources_of_word(offset % PLIC_ENABLE_STRIDE / 4);
    } else if (offset < PLIC_PENDING && offset >= 4 && offset / 4 <= PLIC_SOURCES) {
        plic->priority[offset / 4] = value & PLIC_PRIORITY_MASK;
    }
}

static uint64_t plic_read(void *device, uint64_t offset, unsigned width_bytes)
{
    struct plic *plic = device;
    (void)width_bytes;

    pthread_mutex_lock(&plic->lock);
    uint32_t value = register_read(plic, offset);
    outputs_update(plic);
    pthread_mutex_unlock(&plic->lock);
    return value;
}

static void plic_write(void *device, uint64_t offset, unsigned width_bytes, uint64_t value)
{
    struct plic *plic = device;
    (void)width_bytes;

    pthread_mutex_lock(&plic->lock);
    register_write(plic, offset, (uint32_t)value);
    outputs_update(plic);
    pthread_mutex_unlock(&plic->lock);
}

const struct memory_device_ops plic_ops = {.read = plic_read, .write = plic_write};

void plic_init(struct plic *plic, unsigned contexts,
               void (*set)(void *opaque, unsigned context, bool level), void *opaque)
{
    *plic = (struct plic){.contexts = contexts, .set = set, .opaque = opaque};
    pthread_mutex_init(&plic->lock, NULL);
}

// The wires keep their levels: they belong to the devices, which lower them in their own resets.
void plic_reset(void *device)
{
    struct plic *plic = device;

    pthread_mutex_lock(&plic->lock);
    memset(plic->priority, 0, sizeof(plic->priority));
    memset(plic->claimed, 0, sizeof(plic->claimed));
    memcpy(plic->pending, plic->level, sizeof(plic->pending));
    for (unsigned i = 0; i < plic->contexts; i++) {
        plic->context[i] = (struct plic_context){0};
        plic->set(plic->opaque, i, false);
    }
    pthread_mutex_unlock(&plic->lock);
}

void plic_fini(void *device)
{
    struct plic *plic = device;

    pthread_mutex_destroy(&plic->lock);
}

// ---- State --------------------------------------------------------------------------------------

struct plic_context_image {
    uint32_t enable[PLIC_WORDS];
    uint32_t threshold;
};

struct plic_image {
    uint8_t priority[PLIC_SOURCES + 1];
    uint32_t level[PLIC_WORDS], pending[PLIC_WORDS], claimed[PLIC_WORDS];
    struct state_list contexts;
};

static const struct state_field context_fields[] = {
    STATE_ARRAY(struct plic_context_image, enable, STATE_U32, 1, 0),
    STATE_FIELD(struct plic_context_image, threshold, STATE_U32, 1, PLIC_PRIORITY_MASK),
    {.name = NULL},
};

// The bits that no source has are zero everywhere.
static int words_check(const uint32_t *words, const char *name, const char **field,
                       const char **why)
{
    for (unsigned i = 0; i < PLIC_WORDS; i++) {
        if (!(words[i] & ~sources_of_word(i)))
            continue;
        *field = name;
        *why = "has a source that there is not";
        return -EINVAL;
    }
    return 0;
}

static int context_check(const void *object, const char **field, const char **why)
{
    return words_check(((const struct plic_context_image *)object)->enable, "enable", field, why);
}

static const struct state_schema context_schema = {
    .name = "plic-context",
    .version = 1,
    .struct_bytes = sizeof(struct plic_context_image),
    .fields = context_fields,
    .check = context_check,
};

static const struct state_field plic_fields[] = {
    STATE_ARRAY(struct plic_image, priority, STATE_U8, 1, PLIC_PRIORITY_MASK),
    STATE_ARRAY(struct plic_image, level, STATE_U32, 1, 0),
    STATE_ARRAY(struct plic_image, pending, STATE_U32, 1, 0),
    STATE_ARRAY(struct plic_image, claimed, STATE_U32, 1, 0),
    STATE_LIST_OF(struct plic_image, contexts, &context_schema, 1, PLIC_CONTEXTS),
    {.name = NULL},
};

static int plic_check(const void *object, const char **field, const char **why)
{
    const struct plic_image *image = object;
    int rc = words_check(image->level, "level", field, why);

    if (rc == 0)
        rc = words_check(image->pending, "pending", field, why);
    if (rc == 0)
        rc = words_check(image->claimed, "claimed", field, why);
    for (unsigned i = 0; i < PLIC_WORDS && rc == 0; i++) {
        if (!(image->pending[i] & image->claimed[i]))
            continue;
        *field = "pending";
        *why = "has a source that is being served";
        rc = -EINVAL;
    }
    return rc;
}

static const struct state_schema plic_schema = {
    .name = "plic",
    .version = 1,
    .struct_bytes = sizeof(struct plic_image),
    .fields = plic_fields,
    .check = plic_check,
};

void plic_save(void *device, struct state_writer *writer)
{
    struct plic *plic = device;
    struct plic_context_image contexts[PLIC_CONTEXTS];
    struct plic_image image = {.contexts = {contexts, plic->contexts}};

    pthread_mutex_lock(&plic->lock);
    memcpy(image.priority, plic->priority, sizeof(image.priority));
    memcpy(image.level, plic->level, sizeof(image.level));
    memcpy(image.pending, plic->pending, sizeof(image.pending));
    memcpy(image.claimed, plic->claimed, sizeof(image.claimed));
    for (unsigned i = 0; i < plic->contexts; i++) {
        memcpy(contexts[i].enable, plic->context[i].enable, sizeof(contexts[i].enable));
        contexts[i].threshold = plic->context[i].threshold;
    }
    pthread_mutex_unlock(&plic->lock);
    state_write(writer, &plic_schema, 0, &image);
}

// The wires are as the devices have driven them since; that they were otherwise when saved does not
// matter any more, and a wire that is high now lets a request through.
static void take(struct plic *plic, const struct plic_image *image)
{
    const struct plic_context_image *contexts = image->contexts.elements;

    memcpy(plic->priority, image->priority, sizeof(image->priority));
    memcpy(plic->pending, image->pending, sizeof(image->pending));
    memcpy(plic->claimed, image->claimed, sizeof(image->claimed));
    for (unsigned i = 0; i < plic->contexts; i++) {
        memcpy(plic->context[i].enable, contexts[i].enable, sizeof(contexts[i].enable));
        plic->context[i].threshold = contexts[i].threshold;
    }
    for (unsigned source = 1; source <= PLIC_SOURCES; source++)
        gateway_update(plic, source);
    outputs_update(plic);
}

int plic_load(void *device, struct state_reader *reader, struct error *err)
{
    struct plic *plic = device;
    struct plic_image image = {0};
    int rc = state_read(reader, &plic_schema, 0, &image, err);

    if (rc < 0)
        return rc;
    if (image.contexts.count != plic->contexts)
        return error_set(err, -EINVAL,
                         "cannot load section \"plic\" 0 of the state: field \"contexts\" has %zu "
                         "elements, not %u",
                         image.contexts.count, plic->contexts);
    pthread_mutex_lock(&plic->lock);
    take(plic, &image);
    pthread_mutex_unlock(&plic->lock);
    return 0;
}
