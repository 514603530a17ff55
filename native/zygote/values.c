/* A look at results before they become JSON; runtimed/bootstrap/payload.py says what for. */
#include "module.h"

/* Levels and values looked at before "perhaps" is the answer: neither a circle nor a tree of many shared branches keeps
 * this busy. */
#define RECORDS_DEPTH 64
#define RECORDS_VALUES 1000000

static bool has_records(PyObject *value, int depth, unsigned *left) {
    if (*left == 0 || depth == RECORDS_DEPTH)
        return true;
    (*left)--;
    if (PyDict_Check(value)) {
        PyObject *item;
        Py_ssize_t at = 0;
        while (PyDict_Next(value, &at, NULL, &item))
            if (has_records(item, depth + 1, left))
                return true;
    } else if (PyList_Check(value)) {
        for (Py_ssize_t i = 0; i < PyList_Size(value); i++)
            if (has_records(PyList_GetItem(value, i), depth + 1, left))
                return true;
    } else if (PyTuple_Check(value)) {
        if (!PyTuple_CheckExact(value))
            return true;
        for (Py_ssize_t i = 0; i < PyTuple_Size(value); i++)
            if (has_records(PyTuple_GetItem(value, i), depth + 1, left))
                return true;
    }
    return false;
}

PyObject *module_has_records(PyObject *module, PyObject *value) {
    unsigned left = RECORDS_VALUES;
    (void)module;
    return PyBool_FromLong(has_records(value, 0, &left));
}
