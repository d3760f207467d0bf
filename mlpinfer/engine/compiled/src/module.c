/* mlpinfer.engine.compiled._cpu: a folded network, packed for one instruction set, and two calls on it.
 *
 * Arrays come as buffers, so that neither building nor running depends on NumPy's own headers; every
 * size is checked here, whoever calls. */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdlib.h>
#include <string.h>
#if defined(__APPLE__)
#include <sys/sysctl.h>
#else
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(HAVE_AMX)
#include <sys/syscall.h>
#endif

#include "network.h"

enum { ON_STACK = 12 * 1024 }; /* floats of a workspace: a thread's stack may have no more than 128 KB */

/* -- the caches ------------------------------------------------------------------------------------ */

/* Bytes of the data caches of a core. The defaults are the least that a processor of the last ten years has. */
static ptrdiff_t L1 = 32 * 1024, L2 = 256 * 1024;

static void find_caches(void)
{
    long found[2] = {0};
#if defined(__APPLE__)
    int64_t size;
    const char *const names[2] = {"hw.l1dcachesize", "hw.l2cachesize"};
    for (int i = 0; i < 2; i++) {
        size_t length = sizeof(size);
        if (sysctlbyname(names[i], &size, &length, NULL, 0) == 0) found[i] = (long)size;
    }
#elif defined(_SC_LEVEL2_CACHE_SIZE)
    found[0] = sysconf(_SC_LEVEL1_DCACHE_SIZE);
    found[1] = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
    if (found[0] > L1) L1 = found[0];
    if (found[1] > L2) L2 = found[1];
}

static ptrdiff_t between(ptrdiff_t least, ptrdiff_t value, ptrdiff_t most)
{
    return value < least ? least : value > most ? most : value;
}

/* -- what this processor runs ---------------------------------------------------------------------- */

/* The instruction sets of this processor, best first, and NULL. Filled once, before anybody reads it. */
static const InstructionSet *available[5];
/* Tiles in plain C, compiled for x86-64-v3: NULL where the processor is older. For tests, so it is not among them. */
static const InstructionSet *emulated;

#if defined(__x86_64__)
/* Return whether the processor has what `__builtin_cpu_supports` of GCC 10 and Clang 14 does not know. */
static int has_lzcnt_movbe_f16c(void)
{
    enum { MOVBE = 1 << 22, F16C = 1 << 29, LZCNT = 1 << 5 };
    unsigned eax, ebx, ecx, edx, extended;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !__get_cpuid(0x80000001, &eax, &ebx, &extended, &edx)) return 0;
    return (ecx & MOVBE) && (ecx & F16C) && (extended & LZCNT);
}
#endif

#if defined(HAVE_AMX)
/* Return whether processor and kernel let this process use tiles. The permission holds for all of its threads, and
 * for its children. */
static int may_use_tiles(void)
{
    enum { TILE = 1 << 24, INT8 = 1 << 25, BF16 = 1 << 22, TILE_DATA = 18, ARCH_REQ_XCOMP_PERM = 0x1023 };
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return 0;
    if ((edx & (TILE | INT8 | BF16)) != (TILE | INT8 | BF16)) return 0;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
}
#endif

static void find_available(void)
{
    int n = 0;
#if defined(__x86_64__)
#define HAS(feature) __builtin_cpu_supports(feature)
    __builtin_cpu_init();
    int v2 = HAS("sse4.2") && HAS("ssse3") && HAS("popcnt");
    int v3 = v2 && HAS("avx2") && HAS("fma") && HAS("bmi") && HAS("bmi2") && has_lzcnt_movbe_f16c();
    int v4 = v3 && HAS("avx512f") && HAS("avx512bw") && HAS("avx512cd") && HAS("avx512dq") && HAS("avx512vl");
#if defined(HAVE_AMX)
    if (v4 && may_use_tiles()) available[n++] = &amx;
#endif
    if (v3) emulated = &amx_emulated;
    if (v4) available[n++] = &x86_64_v4;
    if (v3) available[n++] = &x86_64_v3;
    if (v2) available[n++] = &x86_64_v2;
#elif defined(__aarch64__)
    available[n++] = &neon;
    emulated = &amx_emulated;
#endif
    available[n] = NULL;
}

static PyObject *instruction_sets(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    PyObject *list = PyList_New(0);
    for (const InstructionSet *const *set = available; list && *set; set++) {
        PyObject *name = PyUnicode_FromString((*set)->name);
        if (!name || PyList_Append(list, name) < 0) Py_CLEAR(list);
        Py_XDECREF(name);
    }
    PyObject *tuple = list ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return tuple;
}

/* -- the packed network ---------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    const InstructionSet *set;
    Network network;
    Layer *layers;
    void *weights; /* of all layers */
} PackedNetwork;

/* The first multiple of ALIGNMENT in memory; NULL stays NULL. */
static float *align(void *memory)
{
    return (float *)(((uintptr_t)memory + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}

static int get_float32(PyObject *array, Py_buffer *view, Py_ssize_t count)
{
    if (PyObject_GetBuffer(array, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0) return -1;
    const char *format = view->format ? view->format : "B";
    if (strcmp(format, "f") == 0 && view->len == count * (Py_ssize_t)sizeof(float)) return 0;
    PyErr_Format(PyExc_ValueError, "expected %zd values of format f, found %zd bytes of format %s", count,
                 view->len, format);
    PyBuffer_Release(view);
    return -1;
}

/* Copy `columns` floats, which may be none, or as many as fit, and zeros behind them; moves `at` behind all `width`. */
static void pack_row(float **at, const float *from, Py_ssize_t columns, Py_ssize_t width)
{
    memset(*at, 0, (size_t)width * sizeof(float));
    if (columns > 0) memcpy(*at, from, (size_t)(columns < width ? columns : width) * sizeof(float));
    *at += width;
}

/* Copy W (inputs, outputs) panel by panel. */
static void pack_panels(float **at, const float *W, const Layer *layer, const InstructionSet *set)
{
    for (Py_ssize_t column = 0, width; column < layer->stride; column += width) {
        width = next_panel((layer->stride - column) / set->lanes, set->NR) * set->lanes;
        for (Py_ssize_t k = 0; k < layer->inputs; k++)
            pack_row(at, W + k * layer->outputs + column, layer->outputs - column, width);
    }
}

/* Read (inputs, outputs, W, b, activation, slope) but for the arrays; return the floats that it takes, or -1 and
 * an error. `width` is what comes out of the layer before, 0 for the first. */
static Py_ssize_t describe(Layer *layer, PyObject *description, const InstructionSet *set, ptrdiff_t width)
{
    const ptrdiff_t lanes = set->lanes, size = sizeof(float);
    Py_ssize_t inputs, outputs;
    PyObject *W, *b;
    int activation;
    if (!PyTuple_Check(description)) return PyErr_Format(PyExc_TypeError, "expected a tuple for each layer"), -1;
    if (!PyArg_ParseTuple(description, "nnOOif", &inputs, &outputs, &W, &b, &activation, &layer->slope)) return -1;
    if (inputs < 1 || inputs > PY_SSIZE_T_MAX / 8 / MAX_WIDTH || outputs < 1 || outputs > MAX_WIDTH ||
        activation < IDENTITY || activation > TANH || (width && inputs != width)) {
        PyErr_SetString(PyExc_ValueError, "expected layers that fit together, of up to 4096 outputs each");
        return -1;
    }
    layer->inputs = inputs;
    layer->outputs = outputs;
    /* A tile has 16 columns. */
    const ptrdiff_t unit = set->pack_tiles && lanes < 16 ? 16 : lanes;
    layer->stride = (outputs + unit - 1) / unit * unit;
    layer->activation = (Activation)activation;
    layer->KC = between(64, L1 / (set->NR * lanes * size), 512);
    layer->chunk = between(64, L2 / 4 / (layer->stride * size) / 64 * 64, MAX_CHUNK);
    return (inputs + 1) * layer->stride;
}

/* Copy the arrays of a layer that has been described; moves `at` behind them. */
static int pack_arrays(Layer *layer, PyObject *description, const InstructionSet *set, int first, float **at)
{
    Py_buffer view;
    if (get_float32(PyTuple_GetItem(description, 2), &view, layer->inputs * layer->outputs) < 0) return -1;
    layer->W = *at;
    pack_panels(at, view.buf, layer, set);
    if (set->pack_tiles) {
        ptrdiff_t bytes = set->tile_bytes(layer, first);
        layer->tiles = calloc((size_t)bytes + ALIGNMENT, 1);
        if (layer->tiles) set->pack_tiles(layer, view.buf, first, align(layer->tiles));
        else PyErr_NoMemory();
    }
    PyBuffer_Release(&view);
    if (PyErr_Occurred()) return -1;
    if (get_float32(PyTuple_GetItem(description, 3), &view, layer->outputs) < 0) return -1;
    layer->b = *at;
    pack_row(at, view.buf, layer->outputs, layer->stride);
    PyBuffer_Release(&view);
    return 0;
}

/* Fill `self`, whose memory is freed with it. */
static int pack_network(PackedNetwork *self, PyObject *descriptions)
{
    Py_ssize_t count = PyTuple_Size(descriptions), floats = ALIGNMENT / sizeof(float);
    Layer *layers = self->layers = calloc((size_t)count, sizeof(Layer));
    if (!layers) return PyErr_NoMemory(), -1;
    self->network.count = count;
    self->network.layers = layers;
    for (Py_ssize_t i = 0; i < count; i++) {
        ptrdiff_t width = i ? layers[i - 1].outputs : 0;
        Py_ssize_t more = describe(layers + i, PyTuple_GetItem(descriptions, i), self->set, width);
        if (more < 0) return -1;
        floats += more;
        if (layers[i].stride > self->network.widest) self->network.widest = layers[i].stride;
    }
    self->weights = malloc((size_t)floats * sizeof(float));
    if (!self->weights) return PyErr_NoMemory(), -1;
    float *at = align(self->weights);
    for (Py_ssize_t i = 0; i < count; i++)
        if (pack_arrays(layers + i, PyTuple_GetItem(descriptions, i), self->set, i == 0, &at) < 0) return -1;
    const ptrdiff_t size = sizeof(float), unit = self->set->unit;
    /* Weights that stay in L2 beside the values need not be shared by many rows. */
    const int small = floats * size < L2 / 2;
    ptrdiff_t rows = small ? 48 : L2 / 4 / (self->network.widest * size);
    self->network.rows = between(4 * unit < 48 ? 48 : 4 * unit, rows, MAX_ROWS) / unit * unit;
    if (self->set->tile_workspace) self->network.tile_workspace = self->set->tile_workspace(&self->network);
    return 0;
}

static PyObject *packed_network_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    const char *name;
    PyObject *descriptions;
    float cut;
    (void)keywords;
    if (!PyArg_ParseTuple(args, "sO!f", &name, &PyTuple_Type, &descriptions, &cut)) return NULL;
    const InstructionSet *const *set = available;
    while (*set && strcmp((*set)->name, name)) set++;
    const InstructionSet *wanted = strcmp(name, amx_emulated.name) ? *set : emulated;
    if (!wanted) return PyErr_Format(PyExc_ValueError, "expected an instruction set of this processor, found %s", name);
    if (PyTuple_Size(descriptions) == 0) return PyErr_Format(PyExc_ValueError, "expected layers, found none");
    PackedNetwork *self = (PackedNetwork *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (!self) return NULL;
    self->set = wanted;
    self->network.cut = cut;
    if (pack_network(self, descriptions) == 0) return (PyObject *)self;
    Py_DECREF(self);
    return NULL;
}

static void packed_network_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PackedNetwork *packed = (PackedNetwork *)self;
    for (ptrdiff_t i = 0; i < packed->network.count; i++) free(packed->layers[i].tiles);
    free(packed->layers);
    free(packed->weights);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* -- its two calls --------------------------------------------------------------------------------- */

static int get_rows(PyObject *array, const Layer *first, Py_buffer *view, Dtype *dtype, Py_ssize_t *rows)
{
    if (PyObject_GetBuffer(array, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0) return -1;
    const char *format = view->format ? view->format : "B";
    *dtype = strcmp(format, "B") == 0 ? UINT8 : FLOAT32;
    int known = *dtype == UINT8 || (strcmp(format, "f") == 0 && (uintptr_t)view->buf % sizeof(float) == 0);
    if (known && view->ndim == 2 && view->shape[1] == first->inputs) {
        *rows = view->shape[0];
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "expected aligned rows of %zd values of format B or f, found format %s",
                 (Py_ssize_t)first->inputs, format);
    PyBuffer_Release(view);
    return -1;
}

/* Tell whether `view` is (rows, columns) aligned items of one of `formats`. */
static int is_result(const Py_buffer *view, const char *formats, Py_ssize_t itemsize, Py_ssize_t items)
{
    const char *format = view->format ? view->format : "B";
    return format[0] && !format[1] && strchr(formats, format[0]) && view->itemsize == itemsize &&
           view->len == items * itemsize && (uintptr_t)view->buf % (uintptr_t)itemsize == 0;
}

/* labels(x, out, batch_size) or logits(x, out, batch_size). */
static PyObject *run(PackedNetwork *self, PyObject *const *args, Py_ssize_t n_args, int labels)
{
    const Network *network = &self->network;
    Py_ssize_t columns = labels ? 1 : network->layers[network->count - 1].outputs, rows;
    Py_ssize_t itemsize = labels ? (Py_ssize_t)sizeof(int64_t) : (Py_ssize_t)sizeof(float);
    Py_buffer x, y;
    Dtype dtype;
    if (n_args != 3) return PyErr_Format(PyExc_TypeError, "expected x, out and batch_size");
    Py_ssize_t batch_size = PyLong_AsSsize_t(args[2]);
    if (batch_size < 1) {
        if (!PyErr_Occurred()) PyErr_Format(PyExc_ValueError, "expected a batch size from 1, found %zd", batch_size);
        return NULL;
    }
    if (get_rows(args[0], network->layers, &x, &dtype, &rows) < 0) return NULL;
    if (PyObject_GetBuffer(args[1], &y, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE | PyBUF_FORMAT) < 0) {
        PyBuffer_Release(&x);
        return NULL;
    }
    int done = 0;
    if (is_result(&y, labels ? "lq" : "f", itemsize, rows * columns)) {
        const Call call = {network, x.buf, dtype, rows, batch_size, {labels ? y.buf : NULL, labels ? NULL : y.buf}};
        _Alignas(ALIGNMENT) float small[ON_STACK];
        void *large = NULL;
        float *workspace = small;
        ptrdiff_t floats = 2 * network->rows * network->widest + network->tile_workspace / (ptrdiff_t)sizeof(float);
        if (floats > ON_STACK) {
            large = malloc((size_t)floats * sizeof(float) + ALIGNMENT);
            workspace = align(large);
        }
        if (workspace) {
            Py_BEGIN_ALLOW_THREADS
            self->set->evaluate(&call, workspace);
            Py_END_ALLOW_THREADS
            done = 1;
        } else
            PyErr_NoMemory();
        free(large);
    } else
        PyErr_Format(PyExc_ValueError, "expected out of %zd x %zd %s, found %zd bytes of format %s", rows, columns,
                     labels ? "int64" : "float32", y.len, y.format ? y.format : "B");
    PyBuffer_Release(&y);
    PyBuffer_Release(&x);
    if (!done) return NULL;
    Py_RETURN_NONE;
}

static PyObject *packed_network_labels(PyObject *self, PyObject *const *args, Py_ssize_t n_args)
{
    return run((PackedNetwork *)self, args, n_args, 1);
}

static PyObject *packed_network_logits(PyObject *self, PyObject *const *args, Py_ssize_t n_args)
{
    return run((PackedNetwork *)self, args, n_args, 0);
}

/* -- the module ------------------------------------------------------------------------------------ */

static PyMethodDef packed_network_methods[] = {
    {"labels", (PyCFunction)(void (*)(void))packed_network_labels, METH_FASTCALL,
     "labels(x, out, batch_size)\n\nWrite the label of each row of `x` into `out`, int64."},
    {"logits", (PyCFunction)(void (*)(void))packed_network_logits, METH_FASTCALL,
     "logits(x, out, batch_size)\n\nWrite the last layer's values into `out`, (rows, outputs), float32."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot packed_network_slots[] = {
    {Py_tp_doc, "PackedNetwork(instruction_set, layers, cut)\n\n"
                "Layers are tuples (inputs, outputs, W, b, activation, slope)."},
    {Py_tp_new, packed_network_new},
    {Py_tp_dealloc, packed_network_dealloc},
    {Py_tp_methods, packed_network_methods},
    {0, NULL},
};

static PyType_Spec packed_network_spec = {
    "mlpinfer.engine.compiled._cpu.PackedNetwork", sizeof(PackedNetwork), 0, Py_TPFLAGS_DEFAULT, packed_network_slots,
};

static PyMethodDef methods[] = {
    {"instruction_sets", instruction_sets, METH_NOARGS, "Names of those that this processor runs, best first."},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module)
{
    find_available();
    find_caches();
    PyObject *type = PyType_FromSpec(&packed_network_spec);
    int failed = !type || PyModule_AddObjectRef(module, "PackedNetwork", type) < 0 ||
                 PyModule_AddIntConstant(module, "MAX_WIDTH", MAX_WIDTH) < 0 ||
                 PyModule_AddIntConstant(module, "ROWS", MAX_ROWS) < 0 ||
                 PyModule_AddIntConstant(module, "IDENTITY", IDENTITY) < 0 ||
                 PyModule_AddIntConstant(module, "RELU", RELU) < 0 ||
                 PyModule_AddIntConstant(module, "LEAKY_RELU", LEAKY_RELU) < 0 ||
                 PyModule_AddIntConstant(module, "TANH", TANH) < 0;
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_cpu", "Folded networks evaluated by compiled code.", 0, methods, module_slots,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__cpu(void) { return PyModuleDef_Init(&definition); }
