/* The Python face of the zygote: the extension `_zygote`, imported by runtimed/bootstrap in every zygote and used in
 * every environment. Limited API of CPython 3.9: one binary serves 3.9 and later.
 *
 *   serve(descriptor, version) -> Channel | None
 *       Sends ZYGOTE_READY, then forks as the launcher asks. Returns in each environment with its channel, and None in
 *       the zygote when the launcher is gone.
 *   Channel(descriptor)
 *       start(data, directory) -> (handler, function_name, function_version, memory, log_group, log_stream, level,
 *                                  path, zoned, executable) | None
 *           Puts the variables that START brings into data (os.environ's own bytes to bytes) and the process's
 *           environment, and makes directory the working one. level: None for the text format; path: PYTHONPATH of the
 *           function's own or None; zoned: it has its own TZ; executable: None, or what to execute instead: another
 *           runtime's interpreter, or "" for the function's own bootstrap.
 *       init_done(); init_error(error_type, body)
 *       ready(number)
 *           Before start(), to the launcher: the spare of that number is complete.
 *       is_ahead() -> bool
 *           Did START say that nobody waits for this environment yet?
 *       rehearse(packet)
 *           The packet (bytes, which must live on) is what start() or next() returns next, and answers go nowhere until
 *           rehearse(None).
 *       next() -> (request_id, deadline_ms, arn, trace, client_context, cognito_identity, tenant, body) | None
 *           None: the dispatcher is gone. Empty trace, context, identity and tenant are None. Texts are str, context,
 *           identity and body bytes.
 *       respond(body); error(error_type, body)
 *           The answer to what next() returned last, which asks for the next invocation too; body is bytes or str.
 *       stream(content_type, data); part(data); end(); end(error_type, body)
 *           The same as a response in parts: head and first part, further parts, and the end, with the error object
 *           when it is not whole; data and body are bytes.
 *   spare() -> int
 *       The number of this spare, which is not told yet whose environment it is; 0: it is none.
 *   is_maker() -> bool
 *       Is a snapshot of this environment wanted, when it is initialised?
 *   snapshot(channel, wanted) -> bool
 *       Takes it (or says, when not wanted, that there will be none). False here; True in an environment that is restored
 *       from it, where Python's hooks after a fork have run and the channel begins with START again.
 *   settle()
 *       Prepares memory for forks; see settle.c.
 *   read_compiled(root, name, tag, mark, preferred) -> (code, path, cached) | None
 *       Marshalled code of root/__pycache__/name.tag.pyc when that begins with mark, its source is there, and no
 *       root/name with one of the preferred suffixes (bytes).
 *   has_records(value) -> bool
 *       May there be a tuple of a class of its own (a namedtuple) in this value, at any depth?
 *   arm(hooks); fork_before(), fork_parent(), fork_child()
 *       See hooks.c.
 *   EVENT_MAX, RESPONSE_MAX, INIT_ERROR_MAX, STREAM_ERROR_MAX
 *       Bytes of a body.
 *
 * A packet that no dispatcher sends raises OSError(EBADMSG); so does a second start(). The GIL is released while
 * waiting and sending. A Channel is used by one thread. */
#include <errno.h>
#include <unistd.h>

#include "module.h"
#include "zygote/endpoint.h"
#include "zygote/serve.h"
#include "zygote/snapshot.h"

PyObject *raise_error(int error) {
    errno = -error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *module_serve(PyObject *module, PyObject *arguments) {
    static const struct serve_hooks hooks = {PyOS_BeforeFork, PyOS_AfterFork_Parent, PyOS_AfterFork_Child};
    struct module_state *state = PyModule_GetState(module);
    struct serve serve;
    const char *version;
    uint64_t environment;
    PyObject *channel;
    int fd, r;

    if (!PyArg_ParseTuple(arguments, "is", &fd, &version))
        return NULL;
    /* Before the forks, for the same reason as everything else here. */
    channel = channel_object_new(state->channel_type);
    if (channel == NULL)
        return NULL;
    r = serve_open(&serve, fd, &hooks);
    if (r == 0)
        r = serve_ready(&serve, version);
    /* The GIL is kept: a zygote has one thread. */
    if (r == 0)
        r = serve_run(&serve, &environment);
    if (r == SERVE_CHILD) {
        channel_object_attach(channel, SERVE_CHANNEL);
        state->maker = serve.maker;
        state->spare = serve.spare ? environment : 0;
        if (serve.maker)
            (void)snapshot_begin(); /* what it cannot read, snapshot_take cannot either, and says so */
        return channel;
    }
    serve_done(&serve);
    Py_DECREF(channel);
    if (r < 0)
        return raise_error(r);
    Py_RETURN_NONE;
}

static PyObject *module_spare(PyObject *module, PyObject *unused) {
    const struct module_state *state = PyModule_GetState(module);
    (void)unused;
    return PyLong_FromUnsignedLongLong(state->spare);
}

static PyObject *module_is_maker(PyObject *module, PyObject *unused) {
    const struct module_state *state = PyModule_GetState(module);
    (void)unused;
    return PyBool_FromLong(state->maker);
}

static PyObject *module_snapshot(PyObject *module, PyObject *arguments) {
    struct module_state *state = PyModule_GetState(module);
    PyObject *channel;
    int wanted, r;

    if (!PyArg_ParseTuple(arguments, "Op", &channel, &wanted))
        return NULL;
    if (!PyObject_TypeCheck(channel, (PyTypeObject *)state->channel_type) || !state->maker) {
        PyErr_SetString(PyExc_RuntimeError, "no snapshot is wanted of this process, or that is no channel");
        return NULL;
    }
    state->maker = false;
    if (!wanted) {
        snapshot_refuse(SNAPSHOT_DESCRIPTOR, SNAPSHOT_FAILED);
        (void)close(SNAPSHOT_DESCRIPTOR);
        Py_RETURN_FALSE;
    }
    PyOS_BeforeFork();
    r = snapshot_take(SNAPSHOT_DESCRIPTOR);
    if (r == 1) {
        PyOS_AfterFork_Child();
        channel_object_renew(channel);
        Py_RETURN_TRUE;
    }
    (void)close(SNAPSHOT_DESCRIPTOR);
    PyOS_AfterFork_Parent();
    Py_RETURN_FALSE;
}

static PyMethodDef module_methods[] = {
    {"spare", module_spare, METH_NOARGS, NULL},
    {"is_maker", module_is_maker, METH_NOARGS, NULL},
    {"snapshot", module_snapshot, METH_VARARGS, NULL},
    {"serve", module_serve, METH_VARARGS, NULL},
    {"settle", module_settle, METH_NOARGS, NULL},
    {"read_compiled", module_read_compiled, METH_VARARGS, NULL},
    {"has_records", module_has_records, METH_O, NULL},
    {"arm", module_arm, METH_O, NULL},
    {"fork_before", module_fork_before, METH_NOARGS, NULL},
    {"fork_parent", module_fork_parent, METH_NOARGS, NULL},
    {"fork_child", module_fork_child, METH_NOARGS, NULL},
    {0},
};

static int module_execute(PyObject *module) {
    struct module_state *state = PyModule_GetState(module);
    state->channel_type = channel_object_type();
    if (state->channel_type == NULL)
        return -1;
    Py_INCREF(state->channel_type);
    if (PyModule_AddObject(module, "Channel", state->channel_type) < 0) {
        Py_DECREF(state->channel_type);
        return -1;
    }
    if (PyModule_AddIntConstant(module, "EVENT_MAX", ENDPOINT_BODY_MAX) < 0 ||
        PyModule_AddIntConstant(module, "RESPONSE_MAX", ENDPOINT_BODY_MAX) < 0 ||
        PyModule_AddIntConstant(module, "INIT_ERROR_MAX", WIRE_INIT_ERROR_BODY_MAX) < 0 ||
        PyModule_AddIntConstant(module, "STREAM_ERROR_MAX", WIRE_STREAM_END_BODY_MAX) < 0)
        return -1;
    return 0;
}

static int module_clear(PyObject *module) {
    struct module_state *state = PyModule_GetState(module);
    Py_CLEAR(state->channel_type);
    Py_CLEAR(state->hooks);
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)module_execute},
    {0},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_zygote",
    .m_size = sizeof(struct module_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__zygote(void);

PyMODINIT_FUNC PyInit__zygote(void) {
    return PyModuleDef_Init(&module_definition);
}
