/* The type Channel: an environment's channel for Python; module.c documents its methods. */
#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "module.h"
#include "zygote/endpoint.h"

typedef struct {
    PyObject_HEAD struct endpoint endpoint;
    uint8_t id[16]; /* of the invocation under way */
    bool busy;      /* there is one */
    bool streaming; /* and the head of its response was sent */
    bool started;
    PyObject *arn; /* of the last invocation: hardly ever another */
    char name[16]; /* of the process, while it bears that of a spare; empty: it does not */
} Channel;

/* The packet's size, 0 at the end of the stream, -1 with an exception. */
static int wait_packet(Channel *self) {
    for (;;) {
        int r;
        Py_BEGIN_ALLOW_THREADS;
        r = endpoint_wait(&self->endpoint);
        Py_END_ALLOW_THREADS;
        if (r >= 0)
            return r;
        if (r != -EINTR) {
            (void)raise_error(r);
            return -1;
        }
        if (PyErr_CheckSignals() < 0)
            return -1;
    }
}

/* Who looks at the processes of a node tells spares from environments by their name. */
static void be_spare(Channel *self) {
    if (prctl(PR_GET_NAME, self->name, 0, 0, 0) == 0)
        (void)prctl(PR_SET_NAME, "spare", 0, 0, 0);
}

static void be_environment(Channel *self) {
    if (self->name[0] != '\0')
        (void)prctl(PR_SET_NAME, self->name, 0, 0, 0);
    self->name[0] = '\0';
}

/* Does what START says to the process, and tells the rest. */
static PyObject *become(const struct configuration *configuration, PyObject *data, const char *directory) {
    if (variables_set(data, configuration) < 0)
        return NULL;
    if (chdir(directory) < 0)
        return raise_error(-errno);
    PyObject *const items[] = {
        PyUnicode_FromString(configuration->handler),
        PyUnicode_FromString(configuration->function_name),
        PyUnicode_FromString(configuration->function_version),
        PyUnicode_FromString(configuration->memory),
        PyUnicode_FromString(configuration->log_group),
        PyUnicode_FromString(configuration->log_stream),
        object_string_or_none(configuration->level),
        object_string_or_none(configuration_variable(configuration, "PYTHONPATH")),
        PyBool_FromLong(configuration_variable(configuration, "TZ") != NULL),
        object_string_or_none(configuration->executable),
    };
    return object_tuple_of(items, (Py_ssize_t)ARRAY_SIZE(items));
}

static PyObject *channel_start(PyObject *object, PyObject *arguments) {
    Channel *self = (Channel *)object;
    struct configuration configuration;
    struct wire_start start;
    PyObject *data, *result;
    const char *directory;
    int r;

    if (!PyArg_ParseTuple(arguments, "Os", &data, &directory))
        return NULL;
    if (!PyDict_Check(data)) {
        PyErr_SetString(PyExc_TypeError, "os.environ's dictionary is expected");
        return NULL;
    }
    r = wait_packet(self);
    if (r < 0)
        return NULL;
    if (r == 0)
        Py_RETURN_NONE;
    be_environment(self);
    r = self->started ? -EBADMSG : endpoint_take_start(&self->endpoint, &start);
    if (r == 0)
        r = configuration_read(&start, &configuration);
    if (r < 0)
        return raise_error(r);
    self->started = !self->endpoint.rehearsing;
    result = become(&configuration, data, directory);
    configuration_done(&configuration);
    return result;
}

/* The event's bytes; CHUNKs are waited for. 0, or -1 with an exception; *ret_body is NULL at the end of the stream. */
static int take_body(Channel *self, const struct wire_invoke *invoke, PyObject **ret_body) {
    uint32_t total = invoke->total, filled = invoke->body.size;
    PyObject *body = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)total);
    uint8_t *bytes;

    if (body == NULL)
        return -1;
    bytes = (uint8_t *)PyBytes_AsString(body);
    memcpy(bytes, invoke->body.data, filled);
    while (filled < total) {
        int r = wait_packet(self);
        if (r > 0) {
            r = endpoint_take_chunk(&self->endpoint, bytes, total, &filled);
            if (r < 0)
                (void)raise_error(r);
            else
                continue;
        }
        Py_DECREF(body);
        if (r < 0)
            return -1;
        body = NULL;
        break;
    }
    *ret_body = body;
    return 0;
}

/* The same function is invoked under the same name again and again. */
static PyObject *arn_text(Channel *self, struct wire_slice arn) {
    PyObject *value = object_text(arn);
    if (value != NULL && self->arn != NULL && PyUnicode_Compare(value, self->arn) == 0) {
        Py_DECREF(value);
        value = self->arn;
    } else {
        Py_XDECREF(self->arn);
        self->arn = value;
    }
    Py_XINCREF(value);
    return value;
}

static PyObject *channel_next(PyObject *object, PyObject *unused) {
    Channel *self = (Channel *)object;
    struct wire_invoke invoke;
    PyObject *items[8], *tuple;
    int r = wait_packet(self);
    (void)unused;
    if (r < 0)
        return NULL;
    if (r == 0)
        Py_RETURN_NONE;
    r = endpoint_take_invoke(&self->endpoint, &invoke);
    if (r < 0)
        return raise_error(r);
    /* Before the body: a chunk overwrites the packet that the slices point into. */
    items[0] = object_id_text(invoke.id);
    items[1] = PyLong_FromUnsignedLongLong(invoke.deadline_ms);
    items[2] = arn_text(self, invoke.arn);
    items[3] = object_text_or_none(invoke.trace);
    items[4] = object_bytes_or_none(invoke.client_context);
    items[5] = object_bytes_or_none(invoke.cognito_identity);
    items[6] = object_text_or_none(invoke.tenant);
    items[7] = NULL;
    r = take_body(self, &invoke, &items[7]);
    tuple = object_tuple_of(items, 8);
    if (tuple == NULL) {
        if (r == 0 && !PyErr_Occurred())
            Py_RETURN_NONE;
        return NULL;
    }
    memcpy(self->id, invoke.id, sizeof(self->id));
    self->busy = true;
    return tuple;
}

static PyObject *channel_is_ahead(PyObject *object, PyObject *unused) {
    (void)unused;
    return PyBool_FromLong(((Channel *)object)->endpoint.ahead);
}

/* Of the packet, None at the end. */
static PyObject *channel_rehearse(PyObject *object, PyObject *packet) {
    Channel *self = (Channel *)object;
    char *data = NULL;
    Py_ssize_t size = 0;

    if (packet != Py_None && PyBytes_AsStringAndSize(packet, &data, &size) < 0)
        return NULL;
    if (self->busy && packet != Py_None)
        return raise_error(-EPROTO);
    endpoint_rehearse(&self->endpoint, (const uint8_t *)data, (size_t)size);
    self->busy = false;
    Py_RETURN_NONE;
}

/* A new reference to bytes, whose memory *ret_slice shows. */
static PyObject *as_bytes(PyObject *body, char **ret_data, Py_ssize_t *ret_size) {
    PyObject *bytes = body;
    if (PyUnicode_Check(body)) {
        bytes = PyUnicode_AsUTF8String(body);
        if (bytes == NULL)
            return NULL;
    } else
        Py_INCREF(bytes);
    if (PyBytes_AsStringAndSize(bytes, ret_data, ret_size) < 0) {
        Py_DECREF(bytes);
        return NULL;
    }
    return bytes;
}

static PyObject *send_result(Channel *self, PyObject *type, PyObject *body) {
    PyObject *type_bytes = NULL, *bytes;
    char *data, *type_data = NULL;
    Py_ssize_t size, type_size = 0;
    int r;

    if (!self->busy || self->streaming)
        return raise_error(-EPROTO);
    bytes = as_bytes(body, &data, &size);
    if (bytes == NULL)
        return NULL;
    if (type != NULL) {
        type_bytes = as_bytes(type, &type_data, &type_size);
        if (type_bytes == NULL) {
            Py_DECREF(bytes);
            return NULL;
        }
    }
    Py_BEGIN_ALLOW_THREADS;
    r = endpoint_send_result(&self->endpoint, self->id, type != NULL,
        (struct wire_slice){.data = (const uint8_t *)type_data, .size = (uint32_t)type_size}, (const uint8_t *)data,
        (size_t)size);
    Py_END_ALLOW_THREADS;
    Py_DECREF(bytes);
    Py_XDECREF(type_bytes);
    if (r < 0)
        return raise_error(r);
    self->busy = false;
    Py_RETURN_NONE;
}

static PyObject *channel_respond(PyObject *object, PyObject *body) {
    return send_result((Channel *)object, NULL, body);
}

static PyObject *channel_error(PyObject *object, PyObject *arguments) {
    PyObject *type, *body;
    if (!PyArg_ParseTuple(arguments, "OO", &type, &body))
        return NULL;
    return send_result((Channel *)object, type, body);
}

/* ---- responses in parts ----------------------------------------------------------------------------------------- */

static struct wire_slice slice_of(const char *data, Py_ssize_t size) {
    return (struct wire_slice){.data = (const uint8_t *)data, .size = (uint32_t)size};
}

static PyObject *none_or_error(int r) {
    if (r < 0)
        return raise_error(r);
    Py_RETURN_NONE;
}

static PyObject *channel_stream(PyObject *object, PyObject *arguments) {
    Channel *self = (Channel *)object;
    const char *type, *data;
    Py_ssize_t type_size, size;
    int r;

    if (!PyArg_ParseTuple(arguments, "s#y#", &type, &type_size, &data, &size))
        return NULL;
    if (!self->busy || self->streaming)
        return raise_error(-EPROTO);
    if ((uint64_t)size > UINT32_MAX)
        return raise_error(-EMSGSIZE);
    self->streaming = true;
    Py_BEGIN_ALLOW_THREADS;
    r = endpoint_send_head(&self->endpoint, self->id, slice_of(type, type_size), slice_of(data, size));
    Py_END_ALLOW_THREADS;
    return none_or_error(r);
}

static PyObject *channel_part(PyObject *object, PyObject *data) {
    Channel *self = (Channel *)object;
    char *bytes;
    Py_ssize_t size;
    int r;

    if (PyBytes_AsStringAndSize(data, &bytes, &size) < 0)
        return NULL;
    if (!self->streaming)
        return raise_error(-EPROTO);
    Py_BEGIN_ALLOW_THREADS;
    r = endpoint_send_part(&self->endpoint, (const uint8_t *)bytes, (size_t)size);
    Py_END_ALLOW_THREADS;
    return none_or_error(r);
}

static PyObject *channel_end(PyObject *object, PyObject *arguments) {
    Channel *self = (Channel *)object;
    const char *type = NULL, *body = NULL;
    Py_ssize_t type_size = 0, size = 0;
    int r;

    if (!PyArg_ParseTuple(arguments, "|s#y#", &type, &type_size, &body, &size))
        return NULL;
    if (!self->streaming)
        return raise_error(-EPROTO);
    Py_BEGIN_ALLOW_THREADS;
    r = endpoint_send_end(&self->endpoint, type != NULL, slice_of(type, type_size), slice_of(body, size));
    Py_END_ALLOW_THREADS;
    if (r == 0)
        self->busy = self->streaming = false;
    return none_or_error(r);
}

static PyObject *channel_init_done(PyObject *object, PyObject *unused) {
    int r = endpoint_send_init_done(&((Channel *)object)->endpoint);
    (void)unused;
    if (r < 0)
        return raise_error(r);
    Py_RETURN_NONE;
}

static PyObject *channel_ready(PyObject *object, PyObject *number) {
    const unsigned long long spare = PyLong_AsUnsignedLongLong(number);
    int r;

    if (PyErr_Occurred())
        return NULL;
    be_spare((Channel *)object);
    r = endpoint_send_ready(&((Channel *)object)->endpoint, spare);
    if (r < 0)
        return raise_error(r);
    Py_RETURN_NONE;
}

static PyObject *channel_init_error(PyObject *object, PyObject *arguments) {
    const char *type, *body;
    Py_ssize_t type_size, body_size;
    int r;

    if (!PyArg_ParseTuple(arguments, "s#s#", &type, &type_size, &body, &body_size))
        return NULL;
    r = endpoint_send_init_error(&((Channel *)object)->endpoint,
        (struct wire_slice){.data = (const uint8_t *)type, .size = (uint32_t)type_size},
        (struct wire_slice){.data = (const uint8_t *)body, .size = (uint32_t)body_size});
    if (r < 0)
        return raise_error(r);
    Py_RETURN_NONE;
}

PyObject *channel_object_new(PyObject *type) {
    allocfunc allocate = (allocfunc)PyType_GetSlot((PyTypeObject *)type, Py_tp_alloc);
    Channel *self = (Channel *)allocate((PyTypeObject *)type, 0);
    int r;

    if (self == NULL)
        return NULL;
    self->endpoint = (struct endpoint)ENDPOINT_INIT;
    r = endpoint_open(&self->endpoint);
    if (r < 0) {
        Py_DECREF(self);
        return raise_error(r);
    }
    return (PyObject *)self;
}

void channel_object_renew(PyObject *object) {
    ((Channel *)object)->started = false;
}

void channel_object_attach(PyObject *channel, int fd) {
    endpoint_attach(&((Channel *)channel)->endpoint, fd);
}

static PyObject *channel_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    PyObject *self;
    int fd;

    (void)keywords;
    if (!PyArg_ParseTuple(arguments, "i", &fd))
        return NULL;
    self = channel_object_new((PyObject *)type);
    if (self != NULL)
        channel_object_attach(self, fd);
    return self;
}

static void channel_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    endpoint_done(&((Channel *)object)->endpoint);
    Py_XDECREF(((Channel *)object)->arn);
    release(object);
    Py_DECREF(type);
}

static PyMethodDef channel_methods[] = {
    {"start", channel_start, METH_VARARGS, NULL},
    {"is_ahead", channel_is_ahead, METH_NOARGS, NULL},
    {"rehearse", channel_rehearse, METH_O, NULL},
    {"ready", channel_ready, METH_O, NULL},
    {"init_done", channel_init_done, METH_NOARGS, NULL},
    {"init_error", channel_init_error, METH_VARARGS, NULL},
    {"next", channel_next, METH_NOARGS, NULL},
    {"respond", channel_respond, METH_O, NULL},
    {"error", channel_error, METH_VARARGS, NULL},
    {"stream", channel_stream, METH_VARARGS, NULL},
    {"part", channel_part, METH_O, NULL},
    {"end", channel_end, METH_VARARGS, NULL},
    {0},
};

static PyType_Slot channel_slots[] = {
    {Py_tp_new, channel_new},
    {Py_tp_dealloc, channel_dealloc},
    {Py_tp_methods, channel_methods},
    {0},
};

static PyType_Spec channel_spec = {
    .name = "_zygote.Channel",
    .basicsize = sizeof(Channel),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = channel_slots,
};

PyObject *channel_object_type(void) {
    return PyType_FromSpec(&channel_spec);
}
