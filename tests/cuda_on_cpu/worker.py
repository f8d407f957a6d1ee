"""The process that runs kernels of one library in one flavour: reads calls from stdin, answers on stdout.

Its own process, so that a crash or an AddressSanitizer report ends nothing else, and so that neither torch nor
anything but the kernels runs under the sanitizer.

Usage: python -S worker.py MODULE LIBRARY
"""

import importlib.util
import os
import pickle
import signal
import sys


def load_module(path):
    spec = importlib.util.spec_from_file_location("_cuda_on_cpu", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(module, library):
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a kernel's printf must not end up among the answers
    emulated = load_module(module).Library(library)
    pickle.dump(emulated.names(), answers)
    answers.flush()
    while True:
        try:
            name, arguments, order, seed, timeout = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        signal.alarm(timeout)  # its default action ends the process, whatever the kernel is doing
        try:
            answer = emulated.call(name, arguments, order, seed)
        except (KeyError, TypeError, ValueError) as error:
            answer = error
        signal.alarm(0)
        pickle.dump(answer, answers)
        answers.flush()


main(*sys.argv[1:])
