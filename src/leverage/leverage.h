// SPDX-License-Identifier: BSD-2-Clause
// leverage: interceptors, which take data on its way to the host through modules in guests.
//
// Each interceptor is a process (`strake interceptor`), which a supervisor starts and talks with
// (docs/leverage-protocols.md has the messages), and which does to the host whatever is to be done.
#ifndef STRAKE_LEVERAGE_H
#define STRAKE_LEVERAGE_H

#include <net/if.h>

#include "monitor/monitor.h"

// The role: what `strake interceptor` does, with its control connection at this descriptor. Returns
// the exit status. Never from a command line: a supervisor starts it.
#define INTERCEPTOR_CONTROL_FD 3
int interceptor_main(void);

// The guest agent's port (docs/leverage-protocols.md).
#define AGENT_PORT 5355u

// ---- States -------------------------------------------------------------------------------------

enum interceptor_state {
    INTERCEPTOR_STARTING,  // it waits for its guests; `fail` already says what becomes of data
    INTERCEPTOR_ACTIVE,    // data goes through its modules
    INTERCEPTOR_BYPASSED,  // a guest is down, and data passes by (--fail open)
    INTERCEPTOR_SHUT,      // a guest is down, and no data passes (--fail closed)
    INTERCEPTOR_FAILED,    // it cannot do what it is to: `why`
    INTERCEPTOR_REMOVING,
    INTERCEPTOR_STATES
};

// "starting", "active", "bypassed", "shut", "failed", "removing".
const char *interceptor_state_name(enum interceptor_state state);
// INTERCEPTOR_STATES: there is none of that name; NULL is none's.
enum interceptor_state interceptor_state_from_name(const char *name);

// ---- Definition: what an interceptor is, docs/leverage-protocols.md -----------------------------

#define INTERCEPTOR_NAME_MAX                                                                       \
    40u  // bytes; a file's name, as partitions'; a part of names in nftables
#define INTERCEPTOR_MODULES_MAX 8u
#define INTERCEPTOR_FORWARDS_MAX 32u
#define INTERCEPTOR_BYTES_MAX 57344u  // of its JSON text: it has to fit into a message
#define INTERCEPTOR_TIME_LIMIT_MIN_MS 10u
#define INTERCEPTOR_TIME_LIMIT_MAX_MS 600000u

enum interceptor_kind { INTERCEPTOR_NET, INTERCEPTOR_FILES, INTERCEPTOR_MOUNT, INTERCEPTOR_KINDS };
const char *interceptor_kind_name(enum interceptor_kind kind);  // "net", "files", "mount"

enum interceptor_verdict { INTERCEPTOR_ENFORCE, INTERCEPTOR_OBSERVE };
enum interceptor_fail {
    INTERCEPTOR_FAIL_NOT_GIVEN,
    INTERCEPTOR_FAIL_OPEN,
    INTERCEPTOR_FAIL_CLOSED
};

// One step of the chain: what runs in which partition. Strings belong to the definition.
struct interceptor_module {
    char *partition;
    char *run;      // never NULL once checked: "firewall", "ips", "clamav", "mount"
    char *config;   // a file; NULL: the guest's own
    unsigned pair;  // net: which pair of the partition's network devices
    uint32_t port;  // files: of the scanner; 0: what is usual for `run`
};

// A port of the outside that leads to one of the inside.
struct interceptor_forward {
    bool udp;
    uint16_t port;  // outside
    uint8_t address[4];
    uint16_t to_port;
};

// Strings belong to the definition. NULL, where not said otherwise: not given.
struct interceptor_definition {
    char *name;                  // never NULL once checked
    enum interceptor_kind kind;  // INTERCEPTOR_KINDS: not given; never so once checked
    struct interceptor_module modules[INTERCEPTOR_MODULES_MAX];
    size_t module_count;
    enum interceptor_verdict verdict;
    enum interceptor_fail fail;  // given once checked, but for mount
    unsigned time_limit_ms;      // never 0 once checked
    enum log_level log_level;    // of its process
    // net
    char *device;
    bool nat;  // else inline
    char *match, *match_out;
    struct interceptor_forward forwards[INTERCEPTOR_FORWARDS_MAX];
    size_t forward_count;
    char *lan;
    // files
    char *path;
    bool infected_quarantine;  // else deny
    char *quarantine;          // given with infected_quarantine
    uint64_t size_limit_bytes;
    // mount
    char *image, *directory, *type;
    unsigned disk;  // which of the partition's disks the image is
    unsigned part;  // which of the image's partitions; 0: the only one, or it has none
    bool read_only;
    char *passphrase_file;
    json_t *partition;  // the definition of a partition of the interceptor's own
};

// The defaults.
void interceptor_definition_init(struct interceptor_definition *definition);
void interceptor_definition_fini(struct interceptor_definition *definition);
// Sets what `key` (an option of `strake leverage add`, without dashes) stands for; keys of lists
// add to them, flags take any value, "partition" takes JSON. -ENOENT: there is no such key;
// -EINVAL, -ERANGE, -ENOSPC: the value, and *err says what is wrong with it; -ENOMEM.
BASE_NODISCARD int interceptor_definition_set(struct interceptor_definition *definition,
                                              const char *key, const char *value,
                                              struct error *err);
// Fills in what was not given and follows from the kind (time limit, what runs in modules), and
// finds what no key is wrong with alone: -EINVAL, -ERANGE; -ENOMEM.
BASE_NODISCARD int interceptor_definition_check(struct interceptor_definition *definition,
                                                struct error *err);
// From a JSON object; `definition` is initialised here, and finished on failure. Unknown keys and
// wrong values are refused, with the key named. Also checks it.
BASE_NODISCARD int interceptor_definition_from_json(struct interceptor_definition *definition,
                                                    const json_t *object, struct error *err);
// A new JSON object with the keys that differ from the defaults. NULL: no memory.
json_t *interceptor_definition_to_json(const struct interceptor_definition *definition);
// As definition_each_path; the paths of "partition" are not among them.
BASE_NODISCARD int interceptor_definition_each_path(struct interceptor_definition *definition,
                                                    definition_path_fn *fn, struct error *err);
// Whether it has a module in the partition of that name.
bool interceptor_definition_names(const struct interceptor_definition *definition,
                                  const char *partition);

// ---- Partitions, as an interceptor sees them ----------------------------------------------------

#define PARTITION_VIEW_NETS MACHINE_VIRTIO_SLOTS

enum partition_view_state {
    PARTITION_DOWN,  // it does not run
    PARTITION_UP,    // its monitor runs the guest; the guest may not have come far
};

// Strings are borrowed by whoever gets one.
struct partition_view {
    const char *name;
    enum partition_view_state state;
    const char *vsock_path;  // the host's end of its sockets; NULL: it has none
    struct partition_view_net {
        char tap[IFNAMSIZ];  // empty: it is no tap
        uint8_t mac[6];
    } nets[PARTITION_VIEW_NETS];  // in the order of the definition
    size_t net_count;
};

// {"name", "state": "up"|"down", "vsock", "nets": [{"tap", "mac"}]}, as messages have it. NULL: no
// memory.
json_t *partition_view_to_json(const struct partition_view *view);
// Strings of `view` are those of `object`, which must outlive it. -EINVAL: this is none.
BASE_NODISCARD int partition_view_from_json(struct partition_view *view, const json_t *object);

#endif
