/* What the files of the extension share. Only these include Python's headers. */
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "protocol/wire.h"
#include "zygote/configuration.h"

struct module_state {
    PyObject *channel_type;
    bool maker;      /* a snapshot is wanted of this process */
    uint64_t spare;  /* the launcher's number of this spare; 0: it is none */
    PyObject *hooks; /* what modules wanted done around forks: a list of dictionaries; NULL: not ours to do */
};

/* OSError of a negative errno; always NULL. */
PyObject *raise_error(int error);

/* channel_object.c: the type Channel, a new reference; an object of it, which has no descriptor yet; and giving it one,
 * which it owns from then on. */
PyObject *channel_object_type(void);
PyObject *channel_object_new(PyObject *type);
void channel_object_attach(PyObject *channel, int fd);
/* In a restored environment: the next packet is START again. */
void channel_object_renew(PyObject *channel);

/* objects.c: what a packet's fields are in Python; of an empty or missing one None. */
PyObject *object_text(struct wire_slice slice);
PyObject *object_text_or_none(struct wire_slice slice);
PyObject *object_bytes_or_none(struct wire_slice slice);
PyObject *object_string_or_none(const char *value);
PyObject *object_id_text(const uint8_t id[16]);
/* A tuple of n new references, all of which are released when one is missing. */
PyObject *object_tuple_of(PyObject *const *items, Py_ssize_t n);

/* variables.c: puts START's variables into `data`, os.environ's own dictionary of bytes, and makes that the process's
 * environment. -1 with an exception. */
int variables_set(PyObject *data, const struct configuration *configuration);

/* Functions of the module, in compiled.c, hooks.c, settle.c and values.c. */
PyObject *module_read_compiled(PyObject *module, PyObject *arguments);
PyObject *module_settle(PyObject *module, PyObject *unused);
PyObject *module_has_records(PyObject *module, PyObject *value);
PyObject *module_arm(PyObject *module, PyObject *hooks);
PyObject *module_fork_before(PyObject *module, PyObject *unused);
PyObject *module_fork_parent(PyObject *module, PyObject *unused);
PyObject *module_fork_child(PyObject *module, PyObject *unused);
