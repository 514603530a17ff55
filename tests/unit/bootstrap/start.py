"""What a zygote's child becomes, without a zygote.

Run as `<python> -I -S start.py BOOTSTRAP NATIVE TASK LAYERS CHANNEL`.

CHANNEL is a descriptor's number; 1 and 2 are the log.
"""

import sys

bootstrap, native_directory, task_root, layer_root, channel = sys.argv[1:]
sys.path.insert(0, bootstrap)
import zygote  # noqa: E402

sys.path.remove(bootstrap)
del sys.modules["zygote"]  # a function may have a module of that name
native = zygote.import_native(native_directory)
environment = zygote.prepare(bootstrap, native, task_root, layer_root)
environment.run(native.Channel(int(channel)), native)
