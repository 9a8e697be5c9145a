#include "py_steps.h"

#define STEP(name) { #name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, NULL }

static PyMethodDef steps[] = {
	STEP(numbers_in),
	STEP(move_out),
	STEP(move_in),
	STEP(move_to_reader),
	STEP(closing),
	STEP(reads_own_file),
	STEP(call),
	STEP(reply_wait),
	{ NULL, NULL, 0, NULL },
};

static int execute(PyObject *module)
{
	PyObject *type = PyType_FromSpec(&py_owner);
	int result = type ? PyModule_AddType(module, (PyTypeObject *)type) : -1;

	Py_XDECREF(type);
	return result;
}

static PyModuleDef_Slot slots[] = {
	{ Py_mod_exec, execute },
	{ 0, NULL },
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT,
	.m_name = "_steps",
	.m_methods = steps,
	.m_slots = slots,
};

PyMODINIT_FUNC PyInit__steps(void)
{
	return PyModuleDef_Init(&definition);
}
