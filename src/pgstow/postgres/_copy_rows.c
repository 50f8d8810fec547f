/* The loop that runs once per row of a backup: libpq's PQgetCopyData into one buffer, without the interpreter.
 *
 * Only speed depends on this module; pgstow.postgres.copy_rows has the same loop in Python. The functions come
 * as addresses, from the libpq that the driver itself uses: nothing is linked, so any build of it will do.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

typedef int (*get_copy_data_function)(void *connection, char **row, int is_async);
typedef int (*consume_input_function)(void *connection);
typedef void (*free_function)(void *row);

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
"take(functions, connection, socket, wait_ms, gather_ns, buffer, used, rows, size)\n"
"\n"
"Put rows into buffer from offset used on, until there are rows of them, the buffer holds size bytes, or nothing\n"
"arrives for wait_ms. Returns (rows taken, bytes in buffer, what libpq said last, a row that had no room or None).");

static PyObject *take(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned long long get_address, consume_address, free_address, connection_address;
    int socket, wait_ms, said = 0;
    long gather_ns;
    Py_ssize_t used, wanted, size, taken = 0;
    Py_buffer buffer;
    char *row, *homeless = NULL;
    PyObject *left_over;

    if (!PyArg_ParseTuple(args, "(KKK)Kiilw*nnn", &get_address, &consume_address, &free_address,
                          &connection_address, &socket, &wait_ms, &gather_ns, &buffer, &used, &wanted, &size))
        return NULL;
    if (used < 0 || used > buffer.len) {
        PyBuffer_Release(&buffer);
        PyErr_SetString(PyExc_ValueError, "used is outside of the buffer");
        return NULL;
    }
    get_copy_data_function get_copy_data = (get_copy_data_function)(uintptr_t)get_address;
    consume_input_function consume_input = (consume_input_function)(uintptr_t)consume_address;
    free_function free_row = (free_function)(uintptr_t)free_address;
    void *connection = (void *)(uintptr_t)connection_address;

    Py_BEGIN_ALLOW_THREADS
    while (taken < wanted && used < size) {
        said = get_copy_data(connection, &row, 1);
        if (said == 0) {
            if (!has_input(socket, wait_ms, gather_ns) || !consume_input(connection))
                break;
            continue;
        }
        if (said < 0)
            break;
        taken++;
        if (said > buffer.len - used) {
            homeless = row;
            break;
        }
        memcpy((char *)buffer.buf + used, row, said);
        used += said;
        free_row(row);
    }
    Py_END_ALLOW_THREADS

    PyBuffer_Release(&buffer);
    if (homeless != NULL) {
        left_over = PyBytes_FromStringAndSize(homeless, said);
        free_row(homeless);
        if (left_over == NULL)
            return NULL;
    } else {
        left_over = Py_NewRef(Py_None);
    }
    return Py_BuildValue("nniN", taken, used, said, left_over);
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
