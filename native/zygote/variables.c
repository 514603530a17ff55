/* The process's variables, in Python and in C at once. One by one through os.environ they would be the dearest part of
 * an environment's start: every object and every page of memory that is touched is copied for every environment. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "module.h"

static int put(PyObject *data, const char *name, const char *value) {
    PyObject *key = PyBytes_FromString(name), *bytes = PyBytes_FromString(value);
    int r = key != NULL && bytes != NULL ? PyDict_SetItem(data, key, bytes) : -1;
    Py_XDECREF(key);
    Py_XDECREF(bytes);
    return r;
}

/* "NAME=value" of one entry, NUL-terminated, at *at. False with an exception. */
static bool append_entry(char **at, PyObject *key, PyObject *value) {
    char *data[2];
    Py_ssize_t size[2];
    if (PyBytes_AsStringAndSize(key, &data[0], &size[0]) < 0 || PyBytes_AsStringAndSize(value, &data[1], &size[1]) < 0)
        return false;
    for (unsigned i = 0; i < 2; i++) {
        memcpy(*at, data[i], (size_t)size[i]);
        *at += size[i];
        *(*at)++ = i == 0 ? '=' : '\0';
    }
    return true;
}

/* All in one piece of memory, which is never given back: whoever read a variable may hold on to it. */
static int publish(PyObject *data) {
    PyObject *key, *value;
    Py_ssize_t at = 0;
    size_t bytes = 0, n = 0;
    char **pointers, *text;

    while (PyDict_Next(data, &at, &key, &value)) {
        if (!PyBytes_Check(key) || !PyBytes_Check(value)) {
            PyErr_SetString(PyExc_TypeError, "variables are bytes");
            return -1;
        }
        bytes += (size_t)PyBytes_Size(key) + (size_t)PyBytes_Size(value) + 2;
        n++;
    }
    pointers = malloc((n + 1) * sizeof(char *) + bytes);
    if (pointers == NULL) {
        (void)PyErr_NoMemory();
        return -1;
    }
    text = (char *)(pointers + n + 1);
    at = 0;
    for (size_t i = 0; PyDict_Next(data, &at, &key, &value); i++) {
        pointers[i] = text;
        if (!append_entry(&text, key, value)) {
            free(pointers);
            return -1;
        }
    }
    pointers[n] = NULL;
    environ = pointers;
    return 0;
}

int variables_set(PyObject *data, const struct configuration *configuration) {
    json_for_each(item, configuration->own) {
        if (put(data, item->key, item->string) < 0)
            return -1;
    }
    for (unsigned i = 0; i < configuration->n_reserved; i++)
        if (put(data, configuration->reserved[i].name, configuration->reserved[i].value) < 0)
            return -1;
    return publish(data);
}
