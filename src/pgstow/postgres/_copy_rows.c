/* The loop that runs once per row of a backup: libpq's rows into one buffer, without the interpreter.
 *
 * Only speed depends on this module; pgstow.postgres.copy_rows has the same loop in Python. The functions come
 * as addresses, from the libpq that the driver itself uses: nothing is linked, so any build of it will do.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include <limits.h>
#include <poll.h>
#include <stdint.h>
#include <time.h>

typedef int (*get_line_function)(void *connection, char *buffer, int size);
typedef int (*consume_input_function)(void *connection);

/* Wait until something arrives; then a little longer, so that a wake-up brings more than one small message. */
static int has_input(int socket, int wait_ms, long gather_ns)
{
    struct pollfd wanted = {.fd = socket, .events = POLLIN};
    struct timespec gather = {.tv_sec = 0, .tv_nsec = gather_ns};

    if (poll(&wanted, 1, 0) > 0)
        return 1;
    if (poll(&wanted, 1, wait_ms) <= 0)
        return 0;
    nanosleep(&gather, NULL);
    return 1;
}

PyDoc_STRVAR(take_doc,
"take(functions, connection, socket, has_tls, wait_ms, gather_ns, buffer, used, rows, size)\n"
"\n"
"Put rows into buffer from offset used on, until there are rows of them, the last one reaches size, the buffer is\n"
"full in the middle of a row, or nothing arrives for wait_ms.\n"
"Returns (rows completed, bytes in buffer, what libpq said last).");

static PyObject *take(PyObject *module, PyObject *args)
{
    unsigned long long get_address, consume_address, connection_address;
    int socket, has_tls, wait_ms, said = 0;
    long gather_ns;
    Py_ssize_t used, wanted, size, taken = 0;
    Py_buffer buffer;

    (void)module;
    if (!PyArg_ParseTuple(args, "(KK)Kipilw*nnn", &get_address, &consume_address, &connection_address, &socket,
                          &has_tls, &wait_ms, &gather_ns, &buffer, &used, &wanted, &size))
        return NULL;
    if (used < 0 || used > buffer.len) {
        PyBuffer_Release(&buffer);
        PyErr_SetString(PyExc_ValueError, "used is outside of the buffer");
        return NULL;
    }
    get_line_function get_line = (get_line_function)(uintptr_t)get_address;
    consume_input_function consume_input = (consume_input_function)(uintptr_t)consume_address;
    void *connection = (void *)(uintptr_t)connection_address;
    char *bytes = buffer.buf;
    int is_drained = !has_tls;

    Py_BEGIN_ALLOW_THREADS
    /* A line feed ends a row and stands nowhere else: within values COPY writes it as backslash and n. */
    while (taken < wanted && used < buffer.len && (used < size || bytes[used - 1] != '\n')) {
        Py_ssize_t room = buffer.len - used;
        said = get_line(connection, bytes + used, room > INT_MAX ? INT_MAX : (int)room);
        if (said < 0)
            break;
        if (said == 0) {
            /* With TLS first without waiting: it may hold decrypted bytes that no longer show on the socket. */
            if ((is_drained && !has_input(socket, wait_ms, gather_ns)) || !consume_input(connection))
                break;
            is_drained = 1;
            continue;
        }
        is_drained = !has_tls;
        used += said;
        if (bytes[used - 1] == '\n')
            taken++;
    }
    Py_END_ALLOW_THREADS

    PyBuffer_Release(&buffer);
    return Py_BuildValue("nni", taken, used, said);
}

static PyMethodDef methods[] = {
    {"take", take, METH_VARARGS, take_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pgstow.postgres._copy_rows",
    .m_size = 0,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__copy_rows(void)
{
    return PyModule_Create(&definition);
}
