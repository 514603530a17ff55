/* Reads the bytecode of a module of one file at the root of a package, when that is what an import would use;
 * runtimed/bootstrap/handlers.py says what for. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "module.h"

#define PATH_SIZE 1024
/* What importlib puts before the code. */
#define HEADER_SIZE 16
/* Of bytecode; larger files are importlib's business. */
#define CODE_MAX (64 << 20)

/* The texts after each other; false when they do not fit. */
static bool compose(char path[PATH_SIZE], const char *const texts[], size_t n) {
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        size_t size = strlen(texts[i]);
        if (size >= PATH_SIZE - at)
            return false;
        memcpy(path + at, texts[i], size);
        at += size;
    }
    path[at] = '\0';
    return true;
}

/* The code behind the header, which must begin as given; NULL without an exception: it does not. */
static PyObject *read_code(const char *cached, const char *mark, Py_ssize_t mark_size) {
    _cleanup_close_ int fd = open(cached, O_RDONLY | O_CLOEXEC);
    char header[HEADER_SIZE];
    struct stat st;
    PyObject *code;

    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size <= HEADER_SIZE || st.st_size > CODE_MAX ||
        mark_size > HEADER_SIZE || read(fd, header, sizeof(header)) != (ssize_t)sizeof(header) ||
        memcmp(header, mark, (size_t)mark_size) != 0)
        return NULL;
    code = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)st.st_size - HEADER_SIZE);
    if (code != NULL && read(fd, PyBytes_AsString(code), (size_t)PyBytes_Size(code)) != PyBytes_Size(code))
        Py_CLEAR(code);
    return code;
}

/* Is there a file of the module's name and one of these suffixes, which the interpreter would take first? */
static int is_preceded(const char *root, const char *name, PyObject *suffixes) {
    char path[PATH_SIZE];
    for (Py_ssize_t i = 0; i < PyTuple_Size(suffixes); i++) {
        const char *suffix = PyBytes_AsString(PyTuple_GetItem(suffixes, i));
        const char *const texts[] = {root, "/", name, suffix};
        if (suffix == NULL)
            return -1;
        if (!compose(path, texts, ARRAY_SIZE(texts)) || access(path, F_OK) == 0)
            return 1;
    }
    return 0;
}

PyObject *module_read_compiled(PyObject *module, PyObject *arguments) {
    const char *root, *name, *tag, *mark;
    char path[PATH_SIZE], cached[PATH_SIZE];
    PyObject *suffixes, *code;
    Py_ssize_t mark_size;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "sssy#O", &root, &name, &tag, &mark, &mark_size, &suffixes))
        return NULL;
    const char *const path_texts[] = {root, "/", name, ".py"};
    const char *const cached_texts[] = {root, "/__pycache__/", name, ".", tag, ".pyc"};
    if (!compose(path, path_texts, ARRAY_SIZE(path_texts)) || !compose(cached, cached_texts, ARRAY_SIZE(cached_texts)))
        Py_RETURN_NONE;
    code = read_code(cached, mark, mark_size);
    if (code == NULL && PyErr_Occurred())
        return NULL;
    if (code == NULL)
        Py_RETURN_NONE;
    int r = access(path, R_OK) < 0 ? 1 : is_preceded(root, name, suffixes);
    if (r == 0)
        return Py_BuildValue("(Nss)", code, path, cached);
    Py_DECREF(code);
    if (r < 0)
        return NULL;
    Py_RETURN_NONE;
}
