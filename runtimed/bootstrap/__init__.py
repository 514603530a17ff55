"""The Python runtime inside sandboxes: what Lambda calls the runtime interface client.

Runs under the interpreters that functions ask for (CPython 3.9 and later, standard library only, nothing of the
control plane), mounted at /var/runtime/bootstrap. zygote.py is the program of a zygote; environment.py is what each of
its children runs; probe.py and compile.py are programs of their own. In a zygote the package is called `_runtimed`, so
that none of its modules can stand in the way of a function's own.
"""
