// SPDX-License-Identifier: BSD-2-Clause
// Opens of files, held until there is a verdict.
//
// Threads: one reads events, answers what can be answered at once, and those whose time is over; it
// never opens a file, reads one, or waits for anything else, so that no open can wait for itself.
// The others scan, one file each at a time, and may take as long as they like: they hold nobody up
// but whoever waits for that file. All share what is in the gate, under its lock.
//
// An event is an open that waits, with a descriptor of its file, whose number is the event's name
// to the kernel: it must not be used again before the answer, and is closed after it.
//
// Events of one file gather in one job. A scan answers the events that were there when it began;
// and those that came later when the file was the same before and afterwards, and nobody could
// write to it. Otherwise there is another scan for them. A file that was written to during a scan
// is scanned once more for all.
#include <errno.h>
#include <fcntl.h>
#include <linux/fanotify.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "leverage/files.h"

#define EVENTS_BYTES 4096u
#define JOB_BUCKETS 1024u
#define SPARE_NUMBERS 256u  // of descriptors, for all but events
#define THREADS_MAX 64u

struct event {
    struct list order;  // in gate->order, until it is answered
    struct list link;   // in its job's list
    int number, file;   // the same, but for those that a former process has left
    pid_t pid;
    uint64_t began_ns;
    bool answered;
};

struct job {
    struct list bucket, queue;
    struct files_stamp stamp;
    struct list events, later;  // those that the scan is for; those that came since
    bool running;
};

struct files_gate {
    struct files_gate_options options;
    struct files_gate_counts counts;
    pid_t self;

    pthread_mutex_t lock;
    pthread_cond_t work;  // there is something in `queue`, or the end
    struct list order;    // events that wait, the oldest first
    struct list queue;    // jobs that nobody works on
    struct list buckets[JOB_BUCKETS];
    struct files_cache *cache;
    unsigned events, events_max;
    uint64_t epoch;  // of what was found clean
    bool down, ending;
    bool sizes_true;  // what has size 0 has no content

    int wake;  // an eventfd, for the reader
    unsigned running;
    struct scanner {
        struct files_gate *gate;
        unsigned index;
        pthread_t thread;
    } scanners[THREADS_MAX];
    pthread_t reader;
    bool reads;
};

// ---- Answers (locked) ---------------------------------------------------------------------------

enum why { WHY_VERDICT, WHY_DOWN, WHY_LATE };

static void count_answer(struct files_gate *gate, bool allow, enum why why)
{
    struct interceptor_counters *counters = gate->options.counters;
    counter_add(allow ? &counters->returned : &counters->dropped, 1);
    if (allow && why != WHY_VERDICT)
        counter_add(&counters->bypassed, 1);
    if (why == WHY_LATE)
        counter_add(&counters->timed_out, 1);
}

static void answer(struct files_gate *gate, struct event *event, bool allow, enum why why)
{
    if (event->answered)
        return;
    event->answered = true;
    list_remove(&event->order);
    files_answer(gate->options.marks->perm, event->number, allow);
    files_table_drop(gate->options.table, event->number);
    count_answer(gate, allow, why);
    counters_latency(gate->options.counters, clock_monotonic_ns() - event->began_ns);
}

// Nobody knows what is in the file.
static void answer_unknown(struct files_gate *gate, struct event *event, enum why why)
{
    answer(gate, event, gate->options.fail_open || gate->options.observe, why);
}

static void event_free(struct files_gate *gate, struct event *event)
{
    list_remove(&event->link);
    close(event->number);
    if (event->file != event->number)
        close(event->file);
    gate->events--;
    free(event);
}

static uint64_t deadline_of(const struct files_gate *gate, const struct event *event)
{
    return event->began_ns + gate->options.time_limit_ms * 1000000ull;
}

// ---- Jobs (locked) ------------------------------------------------------------------------------

static struct list *bucket_of(struct files_gate *gate, const struct files_stamp *stamp)
{
    return &gate->buckets[(stamp->inode ^ stamp->device) % JOB_BUCKETS];
}

static struct job *find_job(struct files_gate *gate, const struct files_stamp *stamp)
{
    LIST_FOR_EACH(bucket_of(gate, stamp), node)
    {
        struct job *job = BASE_CONTAINER_OF(node, struct job, bucket);
        if (job->stamp.inode == stamp->inode && job->stamp.device == stamp->device)
            return job;
    }
    return NULL;
}

static struct job *make_job(struct files_gate *gate, const struct files_stamp *stamp)
{
    struct job *job = calloc(1, sizeof(*job));
    if (!job)
        return NULL;
    job->stamp = *stamp;
    list_init(&job->events);
    list_init(&job->later);
    list_append(bucket_of(gate, stamp), &job->bucket);
    list_append(&gate->queue, &job->queue);
    pthread_cond_signal(&gate->work);
    return job;
}

static void drop_events(struct files_gate *gate, struct list *events)
{
    LIST_FOR_EACH(events, node)
    event_free(gate, BASE_CONTAINER_OF(node, struct event, link));
}

static void drop_job(struct job *job)
{
    list_remove(&job->bucket);
    list_remove(&job->queue);
    free(job);
}

// ---- Events (the reader) ------------------------------------------------------------------------

static bool take_stamp(int file, struct files_stamp *stamp)
{
    struct stat stat;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (fstat(file, &stat) < 0)
        return false;
    files_stamp_take(stamp, &stat, &now);
    return true;
}

// Whether a file is as it was, and nobody can change it. The times last: who wrote, and was gone
// when writers were asked for, has changed those.
static bool is_unchanged(const struct files_stamp *stamp, int file)
{
    struct files_stamp now;
    return !files_has_writer(file) && take_stamp(file, &now) && files_stamp_equal(stamp, &now);
}

static bool is_clean(struct files_gate *gate, const struct files_stamp *stamp, int file)
{
    if (!files_cache_has(gate->cache, stamp))
        return false;
    if (is_unchanged(stamp, file))
        return true;
    files_cache_drop(gate->cache, stamp);
    return false;
}

// Holds the event, or answers it. An observer lets all go on, and looks afterwards.
static void hold(struct files_gate *gate, struct event *event, const struct files_stamp *stamp)
{
    struct job *job = find_job(gate, stamp);
    if (!job)
        job = make_job(gate, stamp);
    if (!job) {
        answer_unknown(gate, event, WHY_DOWN);
        event_free(gate, event);
        return;
    }
    files_table_put(gate->options.table, event->number, event->file, event->pid);
    list_append(job->running ? &job->later : &job->events, &event->link);
    if (gate->options.observe)
        answer(gate, event, true, WHY_VERDICT);
}

static bool is_own(const struct files_gate *gate, pid_t pid)
{
    return pid == gate->self || pid == files_table_supervisor(gate->options.table);
}

static void judge(struct files_gate *gate, struct event *event)
{
    struct stat stat;
    struct files_stamp stamp;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    bool own = is_own(gate, event->pid);
    bool file = !own && fstat(event->file, &stat) == 0 && S_ISREG(stat.st_mode);
    if (file)
        files_stamp_take(&stamp, &stat, &now);
    if (own)
        counter_add(&gate->counts.own, 1);
    else
        counter_add(&gate->options.counters->seen, 1);
    if (!file || (stat.st_size == 0 && gate->sizes_true)) {
        answer(gate, event, true, WHY_VERDICT);  // of an empty file everybody knows what is in it
    } else if (is_clean(gate, &stamp, event->file)) {
        counter_add(&gate->counts.cached, 1);
        answer(gate, event, true, WHY_VERDICT);
    } else if (gate->down || gate->ending) {
        answer_unknown(gate, event, WHY_DOWN);
    } else if ((uint64_t)stat.st_size > gate->options.size_limit_bytes) {
        counter_add(&gate->counts.too_large, 1);
        answer_unknown(gate, event, WHY_DOWN);
    } else {
        hold(gate, event, &stamp);
        return;
    }
    event_free(gate, event);
}

// Both descriptors are the event's; without memory for it, it is answered here.
static struct event *make_event(struct files_gate *gate, int number, int file, pid_t pid)
{
    struct event *event = calloc(1, sizeof(*event));
    if (!event) {
        files_answer(gate->options.marks->perm, number, gate->options.fail_open);
        close(number);
        return NULL;
    }
    *event = (struct event){
        .number = number, .file = file, .pid = pid, .began_ns = clock_monotonic_ns()};
    list_init(&event->link);
    list_append(&gate->order, &event->order);
    gate->events++;
    return event;
}

static void take_event(struct files_gate *gate, const struct fanotify_event_metadata *metadata)
{
    if (metadata->fd < 0)
        return;
    struct event *event = make_event(gate, metadata->fd, metadata->fd, metadata->pid);
    if (event)
        judge(gate, event);
}

static void read_events(struct files_gate *gate)
{
    uint8_t events[EVENTS_BYTES] __attribute__((aligned(8)));
    ssize_t n = read(gate->options.marks->perm, events, sizeof(events));
    const struct fanotify_event_metadata *event = (void *)events;
    pthread_mutex_lock(&gate->lock);
    for (; n > 0 && FAN_EVENT_OK(event, n); event = FAN_EVENT_NEXT(event, n))
        take_event(gate, event);
    pthread_mutex_unlock(&gate->lock);
}

// Answers those whose time is over; how long until the next is, in milliseconds.
static int answer_late(struct files_gate *gate)
{
    uint64_t now_ns = clock_monotonic_ns();
    while (!list_empty(&gate->order)) {
        struct event *event = BASE_CONTAINER_OF(gate->order.next, struct event, order);
        uint64_t deadline_ns = deadline_of(gate, event);
        if (deadline_ns > now_ns)
            return (int)((deadline_ns - now_ns) / 1000000u) + 1;
        answer_unknown(gate, event, WHY_LATE);  // its job has it still, and closes it
    }
    return -1;
}

static void *reader_run(void *opaque)
{
    struct files_gate *gate = opaque;
    for (;;) {
        pthread_mutex_lock(&gate->lock);
        int timeout = answer_late(gate);
        bool ending = gate->ending, full = gate->events >= gate->events_max;
        pthread_mutex_unlock(&gate->lock);
        if (ending)
            return NULL;
        struct pollfd fds[] = {{.fd = gate->wake, .events = POLLIN},
                               {.fd = full ? -1 : gate->options.marks->perm, .events = POLLIN}};
        if (poll(fds, 2, timeout) <= 0)
            continue;
        uint64_t count;
        if (fds[0].revents && read(gate->wake, &count, sizeof(count)) < 0)
            continue;
        if (fds[1].revents)
            read_events(gate);
    }
}

static void wake_reader(struct files_gate *gate)
{
    uint64_t one = 1;
    (void)!write(gate->wake, &one, sizeof(one));
}

// ---- Scans (the other threads) ------------------------------------------------------------------

// What is found out about one file.
struct look {
    struct event *event;  // whose descriptor is used
    uint64_t deadline_ns, epoch;
    enum files_verdict verdict;
    struct files_stamp stamp;
    bool steady;  // nobody has changed, or could have changed, the file meanwhile
    char signature[CLAMD_SIGNATURE_BYTES];
};

// Not locked. A file that changed meanwhile is looked at again when nobody writes any more: then
// that can be the last word. While somebody does, no verdict could be.
static void look_at(struct files_gate *gate, unsigned thread, struct look *look)
{
    int file = look->event->file;
    bool again;
    do {
        struct files_stamp after;
        bool alone = take_stamp(file, &look->stamp) && !files_has_writer(file);
        look->verdict = gate->options.scan(gate->options.opaque, thread, file, look->deadline_ns,
                                           look->signature);
        counter_add(&gate->counts.scanned, 1);
        bool known = !files_has_writer(file) && take_stamp(file, &after);
        bool same = known && files_stamp_equal(&look->stamp, &after);
        look->steady = alone && same && look->stamp.steady;
        again = known && !same && look->verdict == FILES_CLEAN;
    } while (again && clock_monotonic_ns() < look->deadline_ns);
    if (look->verdict == FILES_INFECTED) {
        counter_add(&gate->counts.infected, 1);
        gate->options.infected(gate->options.opaque, file, look->event->pid, look->signature);
    }
}

static void answer_look(struct files_gate *gate, struct event *event, const struct look *look)
{
    if (look->verdict == FILES_CLEAN)
        answer(gate, event, true, WHY_VERDICT);
    else if (look->verdict == FILES_INFECTED)
        answer(gate, event, gate->options.observe, WHY_VERDICT);
    else
        answer_unknown(gate, event, look->verdict == FILES_LATE ? WHY_LATE : WHY_DOWN);
}

static void answer_events(struct files_gate *gate, struct list *events, const struct look *look)
{
    LIST_FOR_EACH(events, node)
    answer_look(gate, BASE_CONTAINER_OF(node, struct event, link), look);
    drop_events(gate, events);
}

static void move_events(struct list *to, struct list *from)
{
    LIST_FOR_EACH(from, node)
    {
        list_remove(node);
        list_append(to, node);
    }
}

// The first that still waits, or that an observer let go; those that nobody waits for are gone.
static struct event *first_event(struct files_gate *gate, struct job *job)
{
    LIST_FOR_EACH(&job->events, node)
    {
        struct event *event = BASE_CONTAINER_OF(node, struct event, link);
        if (!event->answered || gate->options.observe)
            return event;
        event_free(gate, event);
    }
    return NULL;
}

static void finish_job(struct files_gate *gate, struct job *job, const struct look *look)
{
    bool known = look->verdict == FILES_CLEAN || look->verdict == FILES_INFECTED;
    job->running = false;
    if (look->verdict == FILES_CLEAN && look->steady && look->epoch == gate->epoch)
        files_cache_put(gate->cache, &look->stamp);
    answer_events(gate, &job->events, look);
    if ((known && look->steady) || gate->ending)
        answer_events(gate, &job->later, look);
    if (list_empty(&job->later)) {
        drop_job(job);
        return;
    }
    counter_add(&gate->counts.again, 1);
    move_events(&job->events, &job->later);
    list_append(&gate->queue, &job->queue);
    pthread_cond_signal(&gate->work);
}

static void work_on(struct files_gate *gate, unsigned thread, struct job *job)
{
    struct look look = {.event = first_event(gate, job), .epoch = gate->epoch};
    if (!look.event) {
        drop_job(job);
        return;
    }
    look.deadline_ns = gate->options.observe
                           ? clock_monotonic_ns() + gate->options.time_limit_ms * 1000000ull
                           : deadline_of(gate, look.event);
    pthread_mutex_unlock(&gate->lock);
    look_at(gate, thread, &look);
    pthread_mutex_lock(&gate->lock);
    bool was_full = gate->events >= gate->events_max;
    finish_job(gate, job, &look);
    if (was_full)
        wake_reader(gate);
}

static struct job *take_job(struct files_gate *gate)
{
    while (list_empty(&gate->queue) && !gate->ending)
        pthread_cond_wait(&gate->work, &gate->lock);
    if (gate->ending)
        return NULL;
    struct job *job = BASE_CONTAINER_OF(gate->queue.next, struct job, queue);
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what was freed has left the list
    job->running = true;
    list_remove(&job->queue);
    return job;
}

static void *scanner_run(void *opaque)
{
    struct scanner *scanner = opaque;
    struct files_gate *gate = scanner->gate;
    struct job *job;
    pthread_mutex_lock(&gate->lock);
    while ((job = take_job(gate)))
        work_on(gate, scanner->index, job);
    pthread_mutex_unlock(&gate->lock);
    return NULL;
}

// ---- What a former process has left -------------------------------------------------------------

// Its numbers are kept from new events (or are those of descriptors of ours that stay open); those
// that it had read and not come to note are answered without a look at them: the kernel tells
// nobody which those are.
static void reserve_left(struct files_gate *gate, bool *left)
{
    int low = open("/dev/null", O_RDWR | O_CLOEXEC);
    int null = fcntl(low, F_DUPFD_CLOEXEC, (int)gate->events_max);
    close(low);
    for (int number = 0; number < (int)FILES_NUMBERS; number++) {
        int file;
        left[number] = files_table_get(gate->options.table, number, -1, &file) > 0;
        if (!left[number])
            files_answer(gate->options.marks->perm, number, gate->options.fail_open);
        else if (fcntl(number, F_GETFD) < 0)
            (void)!dup3(null, number, O_CLOEXEC);
    }
    close(null);
}

// Opens the files again; the reader, which runs already, lets that happen.
static void take_left(struct files_gate *gate, const bool *left)
{
    for (int number = 0; number < (int)FILES_NUMBERS; number++) {
        int file;
        if (!left[number])
            continue;
        pid_t pid = files_table_get(gate->options.table, number, gate->options.marks->root, &file);
        pthread_mutex_lock(&gate->lock);
        struct event *event = make_event(gate, number, file < 0 ? number : file, pid);
        if (event && file >= 0) {
            judge(gate, event);
        } else if (event) {
            answer_unknown(gate, event, WHY_DOWN);
            event_free(gate, event);
        }
        pthread_mutex_unlock(&gate->lock);
    }
}

// What says that a file is empty may be a server elsewhere, or a program.
static bool are_sizes_true(int root)
{
    static const long known[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC,
                                 F2FS_SUPER_MAGIC, TMPFS_MAGIC};
    struct statfs fs;
    bool found = false;
    for (size_t i = 0; i < BASE_COUNT_OF(known) && fstatfs(root, &fs) == 0; i++)
        found |= fs.f_type == known[i];
    return found;
}

// ---- Creation and end ---------------------------------------------------------------------------

// Each event has a descriptor as long as it waits. All but a few of the numbers are for those.
static unsigned raise_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return SPARE_NUMBERS;
    struct rlimit wanted = {.rlim_cur = FILES_NUMBERS,
                            .rlim_max =
                                limit.rlim_max > FILES_NUMBERS ? limit.rlim_max : FILES_NUMBERS};
    if (setrlimit(RLIMIT_NOFILE, &wanted) < 0) {
        wanted.rlim_cur = wanted.rlim_max = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &wanted) < 0)
            wanted.rlim_cur = limit.rlim_cur;
    }
    return wanted.rlim_cur > 2 * SPARE_NUMBERS ? (unsigned)wanted.rlim_cur - SPARE_NUMBERS
                                               : SPARE_NUMBERS;
}

static int start_threads(struct files_gate *gate)
{
    int rc = -pthread_create(&gate->reader, NULL, reader_run, gate);
    gate->reads = rc == 0;
    for (unsigned i = 0; i < gate->options.threads && rc == 0; i++) {
        gate->scanners[i] = (struct scanner){.gate = gate, .index = i};
        rc = -pthread_create(&gate->scanners[i].thread, NULL, scanner_run, &gate->scanners[i]);
        gate->running += rc == 0;
    }
    return rc;
}

int files_gate_create(struct files_gate **out, const struct files_gate_options *options,
                      struct error *err)
{
    struct files_gate *gate = calloc(1, sizeof(*gate));
    bool *left = calloc(FILES_NUMBERS, sizeof(*left));
    if (!gate || !left || !(gate->cache = files_cache_create())) {
        free(gate);
        free(left);
        return error_set_errno(err, -ENOMEM, "cannot hold opens of files");
    }
    gate->options = *options;
    gate->options.threads = options->threads < THREADS_MAX ? options->threads : THREADS_MAX;
    gate->self = getpid();
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->work, NULL);
    list_init(&gate->order);
    list_init(&gate->queue);
    for (size_t i = 0; i < JOB_BUCKETS; i++)
        list_init(&gate->buckets[i]);
    gate->sizes_true = are_sizes_true(options->marks->root);
    signal(SIGIO, SIG_IGN);  // what a lease's end is told by
    gate->events_max = raise_limit();
    gate->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = gate->wake < 0 ? -errno : 0;
    if (rc == 0) {
        reserve_left(gate, left);
        rc = start_threads(gate);
    }
    if (rc == 0)
        take_left(gate, left);
    free(left);
    if (rc < 0) {
        files_gate_destroy(gate);
        return error_set_errno(err, rc, "cannot hold opens of files");
    }
    *out = gate;
    return 0;
}

void files_gate_set_down(struct files_gate *gate, bool down)
{
    pthread_mutex_lock(&gate->lock);
    gate->down = down;
    pthread_mutex_unlock(&gate->lock);
}

void files_gate_forget(struct files_gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->epoch++;
    files_cache_clear(gate->cache);
    pthread_mutex_unlock(&gate->lock);
}

const struct files_gate_counts *files_gate_counts(const struct files_gate *gate)
{
    return &gate->counts;
}

unsigned files_gate_waiting(struct files_gate *gate)
{
    unsigned waiting = 0;
    pthread_mutex_lock(&gate->lock);
    LIST_FOR_EACH(&gate->order, node)
    waiting++;
    pthread_mutex_unlock(&gate->lock);
    return waiting;
}

// What is in the queue still is answered like what comes while nobody can scan.
static void answer_all(struct files_gate *gate)
{
    LIST_FOR_EACH(&gate->order, node)
    answer_unknown(gate, BASE_CONTAINER_OF(node, struct event, order), WHY_DOWN);
}

static void end_threads(struct files_gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->ending = true;
    answer_all(gate);
    pthread_cond_broadcast(&gate->work);
    pthread_mutex_unlock(&gate->lock);
    wake_reader(gate);
    if (gate->reads)
        pthread_join(gate->reader, NULL);
    for (unsigned i = 0; i < gate->running; i++)
        pthread_join(gate->scanners[i].thread, NULL);
}

void files_gate_destroy(struct files_gate *gate)
{
    if (!gate)
        return;
    end_threads(gate);
    // One event always fits; without any, read says so.
    struct pollfd more = {.fd = gate->options.marks->perm, .events = POLLIN};
    while (poll(&more, 1, 0) > 0)
        read_events(gate);
    LIST_FOR_EACH(&gate->queue, node)
    {
        struct job *job = BASE_CONTAINER_OF(node, struct job, queue);
        drop_events(gate, &job->events);
        drop_job(job);
    }
    if (gate->wake >= 0)
        close(gate->wake);
    pthread_cond_destroy(&gate->work);
    pthread_mutex_destroy(&gate->lock);
    files_cache_destroy(gate->cache);
    free(gate);
}
