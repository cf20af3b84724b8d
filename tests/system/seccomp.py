"""Seccomp filters around a program: prefixes of its command line, for the tests of what containers and services forbid."""
import json
import re
import subprocess
import sys

ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06   # classic BPF; offset 0 of struct seccomp_data is the call's number

# Puts the filter on itself and becomes the program.
SCRIPT = """
import ctypes, json, os, struct, sys
code = [struct.pack("HBBI", *c) for c in json.loads(sys.argv[1])]
text = ctypes.create_string_buffer(b"".join(code))
program = ctypes.create_string_buffer(struct.pack("HP", len(code), ctypes.addressof(text)))
libc, zero = ctypes.CDLL(None, use_errno=True), ctypes.c_ulong(0)
for args in ((38, ctypes.c_ulong(1), zero, zero, zero), (22, ctypes.c_ulong(2), program, zero, zero)):
    if libc.prctl(*args) != 0:
        sys.exit("prctl: " + os.strerror(ctypes.get_errno()))
os.execv(sys.argv[2], sys.argv[2:])
"""


def _prefix(code):
    return [sys.executable, "-c", SCRIPT, json.dumps(code)]


def forbid(number, outcome):
    """One system call has this outcome, all others are allowed."""
    return _prefix([(LOAD, 0, 0, 0), (JUMP_IF_EQUAL, 0, 1, number), (RETURN, 0, 0, outcome), (RETURN, 0, 0, ALLOW)])


def allow_only(numbers, outcome):
    code = [(LOAD, 0, 0, 0)]
    for n in sorted(numbers):
        code += [(JUMP_IF_EQUAL, 0, 1, n), (RETURN, 0, 0, ALLOW)]
    return _prefix([*code, (RETURN, 0, 0, outcome)])


def numbers_of(names):
    """The numbers of system calls, from this machine's headers; names it does not have are left out."""
    text = subprocess.run(["gcc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"], capture_output=True,
                          text=True, check=True).stdout
    known = {m[1]: int(m[2]) for m in re.finditer(r"^#define __NR_(\w+) (\d+)$", text, re.M)}
    return {known[n] for n in names if n in known}


def systemd_set(name):
    """The names of a set of systemd's such as @system-service, those of the sets within it included."""
    text = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager", name], capture_output=True, text=True,
                          check=True).stdout
    names = set()
    for line in text.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            names |= systemd_set(word)
        elif word and not word.startswith("#"):
            names.add(word)
    return names
