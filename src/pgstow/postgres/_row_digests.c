/* Digests of rows of COPY's text format: SipHash-2-4 with 128 bits of each row, summed.
 *
 * Only speed depends on this module; pgstow.postgres.row_digests does without it, with another hash.
 * Source: J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast short-input PRF", 2012, and its 128-bit variant.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include <stdint.h>
#include <string.h>

#define ROTATED(x, bits) (((x) << (bits)) | ((x) >> (64 - (bits))))

struct state {
    uint64_t v0, v1, v2, v3;
};

struct sum {
    uint64_t low, high;
};

static inline void round_of(struct state *s)
{
    s->v0 += s->v1;
    s->v1 = ROTATED(s->v1, 13) ^ s->v0;
    s->v0 = ROTATED(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = ROTATED(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = ROTATED(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = ROTATED(s->v1, 17) ^ s->v2;
    s->v2 = ROTATED(s->v2, 32);
}

/* Eight bytes at once; compilers make one instruction of it. */
static inline uint64_t word_at(const unsigned char *at)
{
    return (uint64_t)at[0] | (uint64_t)at[1] << 8 | (uint64_t)at[2] << 16 | (uint64_t)at[3] << 24 |
           (uint64_t)at[4] << 32 | (uint64_t)at[5] << 40 | (uint64_t)at[6] << 48 | (uint64_t)at[7] << 56;
}

/* The last bytes of a row, fewer than eight. */
static inline uint64_t rest_at(const unsigned char *at, size_t length)
{
    uint64_t value = 0;

    while (length-- > 0)
        value = value << 8 | at[length];
    return value;
}

static inline void add_row(struct sum *sum, uint64_t k0, uint64_t k1, const unsigned char *row, size_t length)
{
    struct state s = {
        .v0 = k0 ^ UINT64_C(0x736f6d6570736575),
        .v1 = k1 ^ UINT64_C(0x646f72616e646f6d) ^ 0xee,
        .v2 = k0 ^ UINT64_C(0x6c7967656e657261),
        .v3 = k1 ^ UINT64_C(0x7465646279746573),
    };
    const unsigned char *end = row + (length & ~(size_t)7);
    uint64_t word;

    for (const unsigned char *at = row; at < end; at += 8) {
        word = word_at(at);
        s.v3 ^= word;
        round_of(&s);
        round_of(&s);
        s.v0 ^= word;
    }
    word = (uint64_t)length << 56 | rest_at(end, length & 7);
    s.v3 ^= word;
    round_of(&s);
    round_of(&s);
    s.v0 ^= word;

    s.v2 ^= 0xee;
    for (int i = 0; i < 4; i++)
        round_of(&s);
    uint64_t low = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
    s.v1 ^= 0xdd;
    for (int i = 0; i < 4; i++)
        round_of(&s);

    sum->low += low;
    sum->high += (s.v0 ^ s.v1 ^ s.v2 ^ s.v3) + (sum->low < low);
}

PyDoc_STRVAR(add_rows_doc,
"add_rows(key, rows, low, high)\n"
"\n"
"Add the digest of every whole row in rows, without its line feed, to a sum of 128 bits in two halves. key has 16 bytes.\n"
"Returns (number of rows, bytes they take, low, high).");

static PyObject *add_rows(PyObject *module, PyObject *args)
{
    Py_buffer key, rows;
    unsigned long long low, high;
    Py_ssize_t count = 0;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*KK", &key, &rows, &low, &high))
        return NULL;
    if (key.len != 16) {
        PyBuffer_Release(&key);
        PyBuffer_Release(&rows);
        PyErr_SetString(PyExc_ValueError, "the key must have 16 bytes");
        return NULL;
    }
    struct sum sum = {.low = low, .high = high};
    const unsigned char *begin = rows.buf, *at = begin, *end = begin + rows.len, *feed;
    uint64_t k0 = word_at(key.buf), k1 = word_at((const unsigned char *)key.buf + 8);

    Py_BEGIN_ALLOW_THREADS
    while (at < end && (feed = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        add_row(&sum, k0, k1, at, (size_t)(feed - at));
        at = feed + 1;
        count++;
    }
    Py_END_ALLOW_THREADS

    Py_ssize_t used = at - begin;
    PyBuffer_Release(&key);
    PyBuffer_Release(&rows);
    return Py_BuildValue("nnKK", count, used, (unsigned long long)sum.low, (unsigned long long)sum.high);
}

static PyMethodDef methods[] = {
    {"add_rows", add_rows, METH_VARARGS, add_rows_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pgstow.postgres._row_digests",
    .m_size = 0,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__row_digests(void)
{
    return PyModule_Create(&definition);
}
