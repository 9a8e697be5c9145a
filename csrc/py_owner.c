/*
 * py_owner: the Python object that owns a descriptor, and lists of such objects
 *
 * All that moves a descriptor is one step here, in which no Python code runs: no signal
 * handler that raises, no other thread that forks, and so each descriptor is in one place
 * at each moment.  A descriptor is owned by an Owner, or by a list of descriptors in memory
 * (cm_close.h), which comes as a buffer: its count, and places for more than that.
 */
#include "py_steps.h"

#include <structmember.h>

#include <stddef.h>
#include <sys/syscall.h>

#include "cm_close.h"
#include "cm_message.h"
#include "lx_syscall.h"

_Static_assert(offsetof(struct cm_inbox, descriptors) - offsetof(struct cm_inbox, count) ==
	       offsetof(struct cm_descriptors, numbers), "an inbox ends with a list of descriptors");

struct owner {
	PyObject_HEAD
	int number;                       /* -1: nothing */
	PyObject *weak_references;
};

static PyObject *new_owner(PyTypeObject *type)
{
	PyObject *made = PyType_GenericAlloc(type, 0);

	if (made)
		((struct owner *)made)->number = -1;
	return made;
}

static PyObject *owner_new(PyTypeObject *type, PyObject *arguments, PyObject *names)
{
	return new_owner(type);
}

static PyObject *owner_close(PyObject *self, PyObject *unused)
{
	struct owner *owner = (struct owner *)self;
	/* -1 first: after the system call the number may be another's, and whoever runs meanwhile must not close that */
	int number = owner->number;

	owner->number = -1;
	if (number >= 0) {
		Py_BEGIN_ALLOW_THREADS
		lx_enter(SYS_close, number, 0, 0, 0, 0, 0);
		Py_END_ALLOW_THREADS
	}
	Py_RETURN_NONE;
}

/* one that has nothing to close, as nearly all have, runs no Python code when it goes */
static void owner_finalize(PyObject *self)
{
	PyObject *type, *value, *traceback, *done;

	if (((struct owner *)self)->number < 0)
		return;
	PyErr_Fetch(&type, &value, &traceback);
	done = PyObject_CallMethod(self, "_forgotten", NULL);
	if (done)
		Py_DECREF(done);
	else
		PyErr_WriteUnraisable(self);
	PyErr_Restore(type, value, traceback);
}

static void owner_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

	if (((struct owner *)self)->weak_references)
		PyObject_ClearWeakRefs(self);
	release(self);
	Py_DECREF(type);
}

static PyMemberDef owner_members[] = {
	{ "_number", T_INT, offsetof(struct owner, number), 0, NULL },
	{ "__weaklistoffset__", T_PYSSIZET, offsetof(struct owner, weak_references), READONLY, NULL },
	{ NULL, 0, 0, 0, NULL },
};

static PyMethodDef owner_methods[] = {
	{ "close", owner_close, METH_NOARGS,
	  "close($self, /)\n--\n\n"
	  "Closes it.  Does nothing the second time.\n\n"
	  "Never raises: the descriptor is gone whatever close(2) says." },
	{ NULL, NULL, 0, NULL },
};

static PyType_Slot owner_slots[] = {
	{ Py_tp_new, owner_new },
	{ Py_tp_finalize, owner_finalize },
	{ Py_tp_dealloc, owner_dealloc },
	{ Py_tp_members, owner_members },
	{ Py_tp_methods, owner_methods },
	{ 0, NULL },
};

PyType_Spec py_owner = {
	.name = "capmarshal._kernel._steps.Owner",
	.basicsize = sizeof(struct owner),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = owner_slots,
};

/* a list of descriptors in memory, until its view is released; NULL: an error is set */
static struct cm_descriptors *opened(PyObject *memory, Py_buffer *view, Py_ssize_t *room)
{
	if (PyObject_GetBuffer(memory, view, PyBUF_WRITABLE) < 0)
		return NULL;
	*room = (view->len - (Py_ssize_t)sizeof(struct cm_descriptors)) / (Py_ssize_t)sizeof(int);
	return view->buf;
}

static struct owner *owner_at(PyObject *list, Py_ssize_t place, PyTypeObject *kind)
{
	PyObject *item = PyList_GetItem(list, place);

	return item && Py_TYPE(item) == kind ? (struct owner *)item : NULL;
}

/* numbers_in(list, kind): what is owned by each of a list of that kind, or None */
PyObject *py_numbers_in(PyObject *module, PyObject *const *arguments, Py_ssize_t n_arguments)
{
	PyObject *list = arguments[0], *numbers;
	PyTypeObject *kind = (PyTypeObject *)arguments[1];
	Py_ssize_t count = PyList_Size(list);

	if (count < 0 || !(numbers = PyList_New(count)))
		return NULL;
	for (Py_ssize_t i = 0; i < count; i++) {
		const struct owner *owner = owner_at(list, i, kind);
		PyObject *number;

		if (!owner || owner->number < 0) {
			PyErr_Clear();
			Py_DECREF(numbers);
			Py_RETURN_NONE;
		}
		number = PyLong_FromLong(owner->number);
		if (!number || PyList_SetItem(numbers, i, number) < 0) {
			Py_DECREF(numbers);
			return NULL;
		}
	}
	return numbers;
}

/* move_out(list, kind, memory): what the memory has moves to new owners of that kind, at the end of the list */
PyObject *py_move_out(PyObject *module, PyObject *const *arguments, Py_ssize_t n_arguments)
{
	PyObject *list = arguments[0];
	PyTypeObject *kind = (PyTypeObject *)arguments[1];
	struct cm_descriptors *from;
	Py_ssize_t room, before = PyList_Size(list);
	unsigned int count, made = 0;
	Py_buffer view;

	if (before < 0 || !(from = opened(arguments[2], &view, &room)))
		return NULL;
	count = from->count;
	/* all of them are made before the first moves */
	while (made < count && count <= room) {
		PyObject *owner = new_owner(kind);
		int failed = !owner || PyList_Append(list, owner) < 0;

		Py_XDECREF(owner);
		if (failed)
			break;
		made++;
	}
	if (made < count) {
		PyList_SetSlice(list, before, before + made, NULL);
		PyBuffer_Release(&view);
		return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "no such list of descriptors");
	}
	for (unsigned int i = 0; i < count; i++)
		((struct owner *)PyList_GetItem(list, before + i))->number = from->numbers[i];
	from->count = 0;
	PyBuffer_Release(&view);
	Py_RETURN_NONE;
}

/* move_in(list, kind, memory): what each of a list of that kind owns, if anything, is added to what the memory has */
PyObject *py_move_in(PyObject *module, PyObject *const *arguments, Py_ssize_t n_arguments)
{
	PyObject *list = arguments[0];
	PyTypeObject *kind = (PyTypeObject *)arguments[1];
	struct cm_descriptors *to;
	Py_ssize_t room, count = PyList_Size(list), fit = 0;
	Py_buffer view;

	if (count < 0 || !(to = opened(arguments[2], &view, &room)))
		return NULL;
	while (fit < count && owner_at(list, fit, kind))
		fit++;
	if (fit < count || count > room - (Py_ssize_t)to->count) {
		PyBuffer_Release(&view);
		return PyErr_Format(PyExc_ValueError, "%zd owners for %zd places", fit, room);
	}
	for (Py_ssize_t i = 0; i < count; i++) {
		struct owner *owner = owner_at(list, i, kind);

		to->numbers[to->count++] = owner->number;
		owner->number = -1;
	}
	PyBuffer_Release(&view);
	Py_RETURN_NONE;
}

/*
 * move_to_reader(memory, FileIO, BufferedReader): makes a file of the one descriptor that the
 * memory has, of these types of Python's io, which then owns it; where that fails, it is as it was
 */
PyObject *py_move_to_reader(PyObject *module, PyObject *const *arguments, Py_ssize_t n_arguments)
{
	PyObject *raw, *reader = NULL;
	struct cm_descriptors *from;
	Py_ssize_t room;
	Py_buffer view;

	if (!(from = opened(arguments[0], &view, &room)))
		return NULL;
	from->count = 0;
	/* does not close what it fails for */
	raw = PyObject_CallFunction(arguments[1], "is", from->numbers[0], "r");
	if (!raw)
		from->count = 1;
	else
		reader = PyObject_CallFunctionObjArgs(arguments[2], raw, NULL);
	/* closes it where nothing else refers to it */
	Py_XDECREF(raw);
	PyBuffer_Release(&view);
	return reader;
}

/* what a function says of a descriptor and the mounts in memory; nobody is asked that could block, so the GIL is kept */
static PyObject *told(int (*by)(int, struct cm_mounts *), PyObject *const *arguments)
{
	long number = PyLong_AsLong(arguments[0]);
	Py_buffer view;
	int how;

	if (PyErr_Occurred() || PyObject_GetBuffer(arguments[1], &view, PyBUF_WRITABLE) < 0)
		return NULL;
	how = by((int)number, view.buf);
	PyBuffer_Release(&view);
	return PyLong_FromLong(how);
}

/* closing(number, mounts): as cm_closing() */
PyObject *py_closing(PyObject *module, PyObject *const *arguments, Py_ssize_t n_arguments)
{
	return told(cm_closing, arguments);
}

/* reads_own_file(number, mounts): as cm_reads_own_file() */
PyObject *py_reads_own_file(PyObject *module, PyObject *const *arguments, Py_ssize_t n_arguments)
{
	return told(cm_reads_own_file, arguments);
}
