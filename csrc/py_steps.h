/*
 * py_steps: what is a single step to Python
 *
 * A second extension beside cffi's, for what cffi cannot make: a type, and functions that
 * return with their results taken apart.  Of what they are given only the kinds are
 * checked: how many arguments, and which, their callers in this package know.  The
 * functions are in capmarshal/_kernel/_steps.pyi as Python sees them.
 */
#ifndef CAPMARSHAL_PY_STEPS_H
#define CAPMARSHAL_PY_STEPS_H

#include <Python.h>

extern PyType_Spec py_owner;

#define PY_STEP(name) PyObject *py_##name(PyObject *module, PyObject *const *arguments, Py_ssize_t n_arguments)

PY_STEP(numbers_in);
PY_STEP(move_out);
PY_STEP(move_in);
PY_STEP(move_to_reader);
PY_STEP(closing);
PY_STEP(reads_own_file);
PY_STEP(call);
PY_STEP(reply_wait);

#endif
