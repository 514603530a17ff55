/* Fork hooks of modules that the zygote imported (threading, logging): kept here instead of in the interpreter, which
 * would run them for every environment. In a zygote no lock is held and there is one thread, so they would do nothing,
 * at the price of a hundred pages of memory touched in every child. An environment arms them for the function's own
 * forks. The three functions below are registered with the interpreter in their place. */
#include "module.h"

static void run(PyObject *hooks, const char *name, bool backwards) {
    Py_ssize_t n = PyList_Size(hooks);
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *hook = PyDict_GetItemString(PyList_GetItem(hooks, backwards ? n - 1 - i : i), name);
        PyObject *result = hook != NULL ? PyObject_CallObject(hook, NULL) : NULL;
        if (hook != NULL && result == NULL)
            PyErr_WriteUnraisable(hook);
        Py_XDECREF(result);
    }
}

static PyObject *run_armed(PyObject *module, const char *name, bool backwards) {
    const struct module_state *state = PyModule_GetState(module);
    if (state->hooks != NULL)
        run(state->hooks, name, backwards);
    Py_RETURN_NONE;
}

PyObject *module_arm(PyObject *module, PyObject *hooks) {
    struct module_state *state = PyModule_GetState(module);
    if (!PyList_Check(hooks)) {
        PyErr_SetString(PyExc_TypeError, "a list of dictionaries is expected");
        return NULL;
    }
    Py_INCREF(hooks);
    Py_XDECREF(state->hooks);
    state->hooks = hooks;
    Py_RETURN_NONE;
}

PyObject *module_fork_before(PyObject *module, PyObject *unused) {
    (void)unused;
    return run_armed(module, "before", true);
}

PyObject *module_fork_parent(PyObject *module, PyObject *unused) {
    (void)unused;
    return run_armed(module, "after_in_parent", false);
}

PyObject *module_fork_child(PyObject *module, PyObject *unused) {
    (void)unused;
    return run_armed(module, "after_in_child", false);
}
