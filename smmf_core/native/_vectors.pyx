"""Python face of csrc/smmf/vectors_json.hpp: types and ownership; nothing else."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memcpy
from libcpp cimport bool
from libcpp.string cimport string

cdef extern from "smmf/vectors_json.hpp" namespace "smmf" nogil:
    void AppendEmbeddings(const char* data, size_t size, size_t dimensions, bool is_base64,
                          string* out) except +
    void AppendRows(const char* data, size_t size, size_t dimensions, string* out) except +


def render_embeddings(bytes data, size_t dimensions, bool is_base64, bytes head, bytes tail):
    cdef const char* rows = data
    cdef size_t rows_size = len(data)
    cdef const char* tail_text = tail
    cdef size_t tail_size = len(tail)
    cdef string out = head
    with nogil:
        AppendEmbeddings(rows, rows_size, dimensions, is_base64, &out)
        out.append(tail_text, tail_size)
    return _as_bytes(&out)


def render_rows(bytes data, size_t dimensions, bytes head, bytes tail):
    cdef const char* rows = data
    cdef size_t rows_size = len(data)
    cdef const char* tail_text = tail
    cdef size_t tail_size = len(tail)
    cdef string out = head
    with nogil:
        AppendRows(rows, rows_size, dimensions, &out)
        out.append(tail_text, tail_size)
    return _as_bytes(&out)


cdef bytes _as_bytes(string* out):
    cdef bytes body = PyBytes_FromStringAndSize(NULL, out.size())
    cdef char* target = PyBytes_AS_STRING(body)
    with nogil:  # so large a copy, and giving its source back, would hold others up
        memcpy(target, out.data(), out.size())
        out[0] = string()
    return body
