/* Python's objects of what packets hold, for channel_object.c. New references, or NULL with an exception. */
#include "module.h"

/* As text: 8-4-4-4-12. */
#define ID_TEXT_SIZE 36

PyObject *object_text(struct wire_slice slice) {
    return PyUnicode_DecodeUTF8((const char *)slice.data, (Py_ssize_t)slice.size, "replace");
}

PyObject *object_text_or_none(struct wire_slice slice) {
    if (slice.size > 0)
        return object_text(slice);
    Py_INCREF(Py_None);
    return Py_None;
}

PyObject *object_bytes_or_none(struct wire_slice slice) {
    if (slice.size > 0)
        return PyBytes_FromStringAndSize((const char *)slice.data, (Py_ssize_t)slice.size);
    Py_INCREF(Py_None);
    return Py_None;
}

PyObject *object_id_text(const uint8_t id[16]) {
    static const char digits[] = "0123456789abcdef";
    char out[ID_TEXT_SIZE];
    size_t at = 0;
    for (size_t i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            out[at++] = '-';
        out[at++] = digits[id[i] >> 4];
        out[at++] = digits[id[i] & 15];
    }
    return PyUnicode_FromStringAndSize(out, ID_TEXT_SIZE);
}

PyObject *object_tuple_of(PyObject *const *items, Py_ssize_t n) {
    PyObject *tuple = PyTuple_New(n);
    for (Py_ssize_t i = 0; i < n; i++) {
        if (tuple == NULL || items[i] == NULL) {
            for (Py_ssize_t j = i; j < n; j++)
                Py_XDECREF(items[j]);
            Py_XDECREF(tuple);
            return NULL;
        }
        (void)PyTuple_SetItem(tuple, i, items[i]); /* steals */
    }
    return tuple;
}

PyObject *object_string_or_none(const char *value) {
    if (value != NULL)
        return PyUnicode_FromString(value);
    Py_INCREF(Py_None);
    return Py_None;
}
