/*
 * py_calls: a client's call and a server's turn, as Python makes them
 *
 * As cm_call() and cm_reply_wait(), whose structs come as buffers; what came is taken out of
 * the inbox in the same step.
 */
#include "py_steps.h"

#include "cm_call.h"
#include "cm_turn.h"

/* a struct of that size in a buffer, which is open until its view is released; NULL: an error is set */
static void *opened(PyObject *memory, Py_buffer *view, size_t size)
{
	if (PyObject_GetBuffer(memory, view, PyBUF_WRITABLE) < 0)
		return NULL;
	if ((size_t)view->len == size)
		return view->buf;
	PyBuffer_Release(view);
	PyErr_Format(PyExc_ValueError, "%zu bytes are due, not %zd", size, view->len);
	return NULL;
}

static PyObject *piece(const struct cm_inbox *in, size_t start, size_t stop)
{
	return PyBytes_FromStringAndSize((const char *)in->data + start, (Py_ssize_t)(stop - start));
}

/* the numbers of a list or tuple, as cm_call() wants them; 0: an error is set */
static int attach(int *attached, PyObject *lines, PyObject *numbers)
{
	Py_ssize_t count = PySequence_Size(numbers);

	if (count > CM_DESCRIPTORS)
		PyErr_SetString(PyExc_ValueError, "more descriptors than a record carries");
	if (count < 0 || count > CM_DESCRIPTORS)
		return 0;
	attached[CM_ENTRIES] = (int)PyLong_AsLong(lines);
	attached[CM_COUNT] = (int)count;
	for (Py_ssize_t i = 0; i < count; i++) {
		PyObject *number = PySequence_GetItem(numbers, i);

		if (!number)
			return 0;
		attached[CM_FIRST + i] = (int)PyLong_AsLong(number);
		Py_DECREF(number);
	}
	return !PyErr_Occurred();
}

/*
 * call(channel, caller, key, body, lines, numbers, inbox, deadline, owner): the payload of an answer
 * that is data; that and the owner of the inbox, where descriptors in order came with it; else what
 * cm_call() returns
 */
PyObject *py_call(PyObject *module, PyObject *const *arguments, Py_ssize_t n_arguments)
{
	int channel = (int)PyLong_AsLong(arguments[0]);
	char *key = PyBytes_AsString(arguments[2]), *body;
	int64_t deadline = PyLong_AsLongLong(arguments[7]);
	int attached[CM_FIRST + CM_DESCRIPTORS], result;
	struct cm_caller *caller;
	struct cm_inbox *in;
	Py_buffer views[2];
	Py_ssize_t size;
	PyObject *data = NULL;

	if (PyBytes_AsStringAndSize(arguments[3], &body, &size) < 0 || PyErr_Occurred())
		return NULL;
	if (!attach(attached, arguments[4], arguments[5]))
		return NULL;
	if (!(caller = opened(arguments[1], &views[0], sizeof(*caller))))
		return NULL;
	if (!(in = opened(arguments[6], &views[1], sizeof(*in)))) {
		PyBuffer_Release(&views[0]);
		return NULL;
	}
	Py_BEGIN_ALLOW_THREADS
	result = cm_call(channel, caller, key, body, (size_t)size, attached, in, deadline);
	Py_END_ALLOW_THREADS
	if (result == CM_DATA || result == CM_IN_ORDER)
		data = piece(in, CM_HEAD + in->count * CM_LINE, in->size);
	if (data && result == CM_IN_ORDER) {
		PyObject *payload = data;

		data = PyTuple_Pack(2, payload, arguments[8]);
		Py_DECREF(payload);
	}
	if (!data && PyErr_Occurred()) {
		/* no memory: whoever looks closer says so */
		PyErr_Clear();
		result = CM_RECORD;
	}
	PyBuffer_Release(&views[0]);
	PyBuffer_Release(&views[1]);
	return data ? data : PyLong_FromLong(result);
}

/* key, payload, until when, how many descriptors, and the table, if it says more than that they are in order */
static PyObject *taken(const struct cm_turn *turn, int event)
{
	const struct cm_inbox *in = &turn->inbox;
	PyObject *key = piece(in, CM_CALL_KEY, turn->table), *payload = piece(in, turn->payload, in->size);
	PyObject *deadline = turn->deadline == CM_FOREVER ? Py_NewRef(Py_None) : PyLong_FromLongLong(turn->deadline);
	PyObject *count = PyLong_FromLong((long)in->count);
	PyObject *table = event == CM_WHOLE ? piece(in, turn->table, turn->payload) : Py_NewRef(Py_None);
	PyObject *all = NULL;

	if (key && payload && deadline && count && table)
		all = PyTuple_Pack(5, key, payload, deadline, count, table);
	Py_XDECREF(key);
	Py_XDECREF(payload);
	Py_XDECREF(deadline);
	Py_XDECREF(count);
	Py_XDECREF(table);
	return all;
}

/* reply_wait(turn, payload or None, deadline): a CALL that needs no closer look, taken apart, or what cm_reply_wait() returns */
PyObject *py_reply_wait(PyObject *module, PyObject *const *arguments, Py_ssize_t n_arguments)
{
	int64_t deadline = PyLong_AsLongLong(arguments[2]);
	PyObject *call = NULL;
	struct cm_turn *turn;
	char *payload = NULL;
	Py_ssize_t size = 0;
	Py_buffer view;
	int event;

	if (arguments[1] != Py_None && PyBytes_AsStringAndSize(arguments[1], &payload, &size) < 0)
		return NULL;
	if (PyErr_Occurred() || !(turn = opened(arguments[0], &view, sizeof(*turn))))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	event = cm_reply_wait(turn, payload, (size_t)size, deadline);
	Py_END_ALLOW_THREADS
	if ((event == CM_DATA || event == CM_IN_ORDER || event == CM_WHOLE) && !(call = taken(turn, event))) {
		/* as above */
		PyErr_Clear();
		event = CM_RECORD;
	}
	PyBuffer_Release(&view);
	return call ? call : PyLong_FromLong(event);
}
